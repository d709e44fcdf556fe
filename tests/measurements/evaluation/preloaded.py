"""The process of an evaluation with its libraries imported beforehand, so that one can be forked and killed at once."""

from __future__ import annotations

from distilbench.measurements.evaluation.measure.worker import main
from distilbench.measurements.sweep.measure.worker import preload

__all__ = ["main", "preload"]
