"""How task scores are measured."""
