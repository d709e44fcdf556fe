"""How trainings are measured."""
