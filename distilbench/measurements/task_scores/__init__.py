"""How many questions of a task a decoder answers, with keys and values whole and compressed."""
