"""Kinds of measurement, one folder each."""
