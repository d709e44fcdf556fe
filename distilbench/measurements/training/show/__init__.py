"""How trainings are shown."""
