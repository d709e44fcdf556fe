"""What processes hand to each other; apart, so that none imports what only another needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilbench.harness.handover import SavedSpec

TOKENS = Path("work", "tokens.npy")  # in a run's folder; int32 (tokens,): what prompts are cut from
FACTORS = Path("work", "palu")  # ranks and factors of the compressed model


@dataclass(frozen=True)
class LlmSpec(SavedSpec):
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
