"""How task scores are shown."""
