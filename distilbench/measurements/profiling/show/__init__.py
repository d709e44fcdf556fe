"""How a profile is shown."""
