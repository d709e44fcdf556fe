"""What processes hand to each other; apart, so that none imports what only another needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distilbench.harness.handover import SavedSpec


@dataclass(frozen=True)
class TrainingSpec(SavedSpec):
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
