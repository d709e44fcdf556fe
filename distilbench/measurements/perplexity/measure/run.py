"""How perplexities are measured: what is prepared once, what a worker is told. No torch."""

from __future__ import annotations

from typing import Any

from distilbench.harness import processes
from distilbench.harness.handover import is_prepared, load, prepare_once
from distilbench.measurements.perplexity.params import PerplexityParams
from distilbench.runs.folder import Run

__all__ = ["is_prepared", "load", "prepare", "take"]
HERE = "distilbench.measurements.perplexity.measure"
PROTOCOL = ("group_size", "rank_block", "length", "stride", "windows", "heap")

take = processes.taking(f"{HERE}.worker", lambda params, _: {name: getattr(params, name) for name in PROTOCOL})


def prepare(params: PerplexityParams, run: Run) -> dict[str, Any]:
    """Texts, model and calibration of the run, once.

    Raises:
        RunError: the run was begun with another text or another model; both hashes are named.
    """
    return prepare_once(run, params, f"{HERE}.prepare")
