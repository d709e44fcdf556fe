"""What a kind of measurement takes from here where it shows nothing more (see `Measurement.show`)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.runs.folder import Run


def sentences(table: pd.DataFrame) -> list[str]:
    """No findings in words."""
    return []


def figure_caption(run: Run, figure: str) -> str | None:
    """No figures."""
    return None


def mark_of(name: str) -> str | None:
    """No number comes from a cell that may be unstable."""
    return None


def doubts(summary: dict[str, Any]) -> list[str]:
    """What was not measured."""
    return [f"{cell['cell']}: not measured ({cell['state']})" for cell in summary["cells"] if cell["state"] != "ok"]


def limitations(run: Run) -> list[str]:
    """What the run cannot say."""
    return doubts(run.kind.summarise(run.folder))


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    return f"{len(run.measured())} repetitions computed again from their raw file"
