"""What processes hand to each other; apart, so that none imports what only another needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilbench import paths

if TYPE_CHECKING:  # a worker needs no run folder
    from distilbench.runs.folder import Run

PREPARED = Path("work", "prepared.json")  # in a run's folder


@dataclass(frozen=True)
class TrainingSpec:
    """What the parent asks for; all paths absolute.

    Attributes:
        run: the run folder, or that of an attempt at a shard.
        work: folder of this step, in which a training that was interrupted goes on.
        identity: the fields of the record that say which step this is.
        params: of a training (`TrainingParams`).
        prepared: the fields of `corpus.Prepared`.
        protocol: of the design, and cores.
    """

    run: str
    work: str
    identity: dict[str, Any]
    params: dict[str, Any]
    prepared: dict[str, Any]
    protocol: dict[str, Any]

    def save(self, file: Path) -> None:
        """Writes it for the worker."""
        paths.write_json(file, asdict(self))

    @classmethod
    def load(cls, file: Path) -> TrainingSpec:
        """What the parent wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def save(run: Run, prepared: dict[str, Any]) -> None:
    """Leaves what was prepared in the run's scratch folder, for all of its processes."""
    paths.write_json(run.folder / PREPARED, prepared)


def is_prepared(run: Run) -> bool:
    """Whether it was saved; with a run's end its scratch folder goes."""
    return (run.folder / PREPARED).is_file()


def load(run: Run) -> dict[str, Any]:
    """What another process prepared: the fields of `corpus.Prepared`.

    Raises:
        RunError: none did.
    """
    return paths.read_json(run.folder / PREPARED)
