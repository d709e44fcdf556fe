"""What follows from the records of dimension alignment."""
