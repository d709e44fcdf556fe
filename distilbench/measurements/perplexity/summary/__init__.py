"""What follows from the records of perplexities."""
