"""What follows from the records of an evaluation."""
