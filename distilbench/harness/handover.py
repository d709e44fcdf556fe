"""What the processes of a run hand to each other in files: what was prepared once, and what a worker is told."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class CellSpec(SavedSpec):
    """What the worker of a step is told; all paths absolute.

    Attributes:
        run: the run folder, or that of an attempt at a shard.
        prepared: folder of the run in which lies what was prepared.
        identity: the fields of the record that say which step it is.
        model: what is loaded, and where.
        protocol: of the design, and cores.
    """

    run: str
    prepared: str
    identity: dict[str, Any]
    model: dict[str, Any]
    protocol: dict[str, Any]


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


def prepare_once(run: Run, params: Any, module: str) -> dict[str, Any]:
    """What the `prepare` of a module gives; of a run in shards, what its ingest prepared.

    Args:
        module: by name, since it may need torch.
    """
    if run.is_split and is_prepared(run):
        return load(run)
    return importlib.import_module(module).prepare(params, run)
