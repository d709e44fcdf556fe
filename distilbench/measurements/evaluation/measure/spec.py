"""What processes hand to each other; apart, so that none imports what only another needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilbench import paths

if TYPE_CHECKING:  # a worker needs no run folder
    from distilbench.runs.folder import Run

PREPARED = Path("work", "prepared.json")  # in a run's folder


@dataclass(frozen=True)
class EvaluationSpec:
    """What the parent asks for; all paths absolute.

    Attributes:
        run: the run folder.
        rows: the prepared rows, a line of JSON each: number, label, text.
        tokenizer: its folder.
        identity: the fields of the record that say which step this is.
        model: arguments of `load_model`.
        protocol: of the design, and cores.
        label_names: of the model, in the order of its logits; of the data for random weights.
        rows_damaged: how many were left out.
    """

    run: str
    rows: str
    tokenizer: str
    identity: dict[str, Any]
    model: dict[str, Any]
    protocol: dict[str, Any]
    label_names: list[str]
    rows_damaged: int

    def save(self, file: Path) -> None:
        """Writes it for the worker."""
        paths.write_json(file, asdict(self))


@dataclass(frozen=True)
class Prepared:
    """What all cells of a run share; fields as of `EvaluationSpec`.

    Attributes:
        count: how many rows there are.
        vocab_size: rows that the tokenizer needs; random weights get an embedding table of that size.
    """

    rows: str
    tokenizer: str
    label_names: list[str]
    rows_damaged: int
    count: int
    vocab_size: int

    def save(self, run: Run) -> None:
        """Leaves it in the run's scratch folder, for shards that are measured elsewhere."""
        paths.write_json(run.folder / PREPARED, asdict(self))

    @staticmethod
    def is_there(run: Run) -> bool:
        """Whether it was saved; with a run's end its scratch folder goes."""
        return (run.folder / PREPARED).is_file()

    @classmethod
    def load(cls, run: Run) -> Prepared:
        """What another process prepared.

        Raises:
            RunError: none did.
        """
        return cls(**paths.read_json(run.folder / PREPARED))
