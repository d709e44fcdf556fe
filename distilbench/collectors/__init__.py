"""Collectors: each measures one thing around a piece of work."""
