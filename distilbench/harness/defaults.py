"""How a kind of measurement measures where it does not say otherwise (see `Measurement.measure`)."""

from __future__ import annotations

from typing import Any

from distilbench.errors import ParameterError
from distilbench.harness import processes
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Step

take = processes.take


def prepare(params: Any, run: Run) -> None:
    """Nothing is prepared that all steps share."""


def fetch(params: Any) -> tuple[dict[str, Any], Any]:
    """What is measured on must be fetched by a kind that measures on something.

    Raises:
        ParameterError: this one measures on no model and no text.
    """
    raise ParameterError(f"study {params.study!r} measures on no model and no text")


def is_prepared(run: Run) -> bool:
    """What needs no preparation is ready at any time."""
    return True


def load(run: Run) -> None:
    """Another process prepared nothing."""


def once(run: Run, params: Any) -> None:
    """Nothing is measured once a run."""


def count_later(params: Any) -> int:
    """All steps are known beforehand."""
    return 0


def later(run: Run, params: Any) -> list[Step]:
    """All steps are known beforehand."""
    return []


def bring(run: Run, new: list[Any]) -> None:
    """Nothing comes along with records of shards."""
