"""What follows from the records of decoders."""
