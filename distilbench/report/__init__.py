"""Reports: reading runs and showing them. No torch."""
