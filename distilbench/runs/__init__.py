"""What a run folder is: made, found, held, resumed, verified."""
