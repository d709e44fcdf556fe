"""Training: extras that nothing else imports."""
