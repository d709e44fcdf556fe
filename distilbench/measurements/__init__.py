"""Kinds of measurement, one folder each."""

FIRST = "sweep"  # the kind of the first versions' runs, whose config.json names none
