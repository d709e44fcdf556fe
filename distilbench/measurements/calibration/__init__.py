"""The calibration: the instrument tried on known truths."""
