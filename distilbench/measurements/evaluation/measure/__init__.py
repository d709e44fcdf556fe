"""How an evaluation measures: batch by batch, committed chunk by chunk."""
