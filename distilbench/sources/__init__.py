"""What is measured on: models and texts, from hub, files, packages or random numbers."""
