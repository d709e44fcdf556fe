"""What the slides say of sweeps: their text, and their pictures."""
