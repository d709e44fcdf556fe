"""How a sweep measures."""
