"""What the processes of a run hand to each other in files: what was prepared once, and what a worker is told."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from distilbench import paths

if TYPE_CHECKING:  # a worker needs no run folder
    from distilbench.runs.folder import Run

PREPARED = Path("work", "prepared.json")  # in a run's folder; with a run's end its scratch folder goes


class SavedSpec:
    """What a parent asks of a worker, as a file; dataclasses of plain values derive from it."""

    def save(self, file: Path) -> None:
        """Writes it for the worker."""
        paths.write_json(file, asdict(self))

    @classmethod
    def load(cls, file: Path) -> Self:
        """What the parent wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def save(run: Run, prepared: dict[str, Any]) -> None:
    """Leaves what was prepared in the run's scratch folder, for all of its processes."""
    paths.write_json(run.folder / PREPARED, prepared)


def is_prepared(run: Run) -> bool:
    """Whether it was saved."""
    return (run.folder / PREPARED).is_file()


def load(run: Run) -> dict[str, Any]:
    """What another process prepared.

    Raises:
        RunError: none did.
    """
    return paths.read_json(run.folder / PREPARED)
