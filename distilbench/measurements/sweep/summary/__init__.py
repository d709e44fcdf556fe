"""What follows from the raw files of a sweep."""
