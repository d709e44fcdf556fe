"""What a parent hands to the process that measures; apart, so that neither imports what only the other needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distilbench import paths


@dataclass(frozen=True)
class WorkerSpec:
    """What the parent asks for; all paths absolute.

    Attributes:
        run: the run folder.
        inputs: .npz with token ids, sample ids and labels.
        identity: the fields of the record that say which repetition this is.
        model: arguments of `load_model`.
        protocol: of the design: bounds of warm-up, timing and energy windows, seed, threads; and affinity: the cores.
        label_names: of the data set.
        texts: .json with the sentences, in the order of the inputs; "": no requests are timed.
        tokenizer: its folder.
    """

    run: str
    inputs: str
    identity: dict[str, Any]
    model: dict[str, Any]
    protocol: dict[str, Any]
    label_names: list[str]
    texts: str = ""
    tokenizer: str = ""

    def save(self, file: Path) -> None:
        """Writes the job for the worker."""
        paths.write_json(file, asdict(self))


def predictions_file(run: Path, cell: str) -> Path:
    """Where a worker leaves a cell's predictions until the parent commits them."""
    return run / "work" / f"{cell}.predictions.parquet"
