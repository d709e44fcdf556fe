"""What follows from the files of a profile."""
