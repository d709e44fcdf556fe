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


@dataclass(frozen=True)
class Prepared:
    """What all cells of a run share.

    Attributes:
        inputs: .npz with token ids, sample ids and labels.
        manifest: what the text is.
        model: what the model is.
        label_names: of the data.
        fits: what tokenizer and text ask of the model (`tokenizers.fits`).
        texts: .json with the sentences, for requests; "" without.
        tokenizer: its folder; "" without.
    """

    inputs: Path
    manifest: dict[str, Any]
    model: dict[str, Any]
    label_names: list[str]
    fits: dict[str, int]
    texts: str = ""
    tokenizer: str = ""

    def save(self, run: Run) -> None:
        """Leaves it in the run's scratch folder, for parts that are measured elsewhere."""
        paths.write_json(run.folder / PREPARED, vars(self) | {"inputs": str(self.inputs)})

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
        told = paths.read_json(run.folder / PREPARED)
        return cls(**told | {"inputs": Path(told["inputs"])})
