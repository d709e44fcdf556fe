"""How a profile is measured."""
