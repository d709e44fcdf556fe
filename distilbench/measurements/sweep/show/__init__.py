"""What a sweep shows: tables, plots, findings, named numbers."""
