"""What follows from the records of task scores."""
