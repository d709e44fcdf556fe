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
TOKENS = Path("work", "tokens.npy")  # int32 (tokens,): what prompts are cut from
FACTORS = Path("work", "palu")  # ranks and factors of the compressed model


@dataclass(frozen=True)
class LlmSpec:
    """What the parent asks for; all paths absolute.

    Attributes:
        run: the run folder, or that of an attempt at a shard.
        prepared: folder of the run in which tokens and factors lie.
        identity: the fields of the record that say which step this is.
        model: arguments of `decoders.load_decoder`.
        protocol: of the design, and cores.
    """

    run: str
    prepared: str
    identity: dict[str, Any]
    model: dict[str, Any]
    protocol: dict[str, Any]

    def save(self, file: Path) -> None:
        """Writes it for the worker."""
        paths.write_json(file, asdict(self))

    @classmethod
    def load(cls, file: Path) -> LlmSpec:
        """What the parent wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def is_prepared(run: Run) -> bool:
    """Whether text and factors are there; with a run's end its scratch folder goes."""
    return (run.folder / PREPARED).is_file()


def load(run: Run) -> dict[str, Any]:
    """What another process prepared.

    Raises:
        RunError: none did.
    """
    return paths.read_json(run.folder / PREPARED)
