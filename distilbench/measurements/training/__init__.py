"""Training in one process and in many: how fast, how much of it is all-reduce, how good."""
