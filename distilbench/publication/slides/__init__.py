"""Twelve slides of the published runs."""
