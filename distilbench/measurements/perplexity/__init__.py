"""How well a decoder predicts a text, with keys and values whole and compressed."""
