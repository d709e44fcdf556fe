"""Trains a classifier in one process or in many: `python -m distilbench.training`, by itself or under torchrun."""
