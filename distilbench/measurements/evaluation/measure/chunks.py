"""Chunks of an evaluation: whole lines of a file, each the commit of its rows; any process may be killed at any moment.

Until an evaluation is complete the file is in the run's scratch folder, which stays until the run is finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from distilbench import paths
from distilbench.errors import RunError


class Batch(BaseModel):
    """One forward."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    rows: int
    tokens: int
    positions: int
    cut: int
    tokenise_ms: float
    forward_ms: float
    device_ms: float | None


class Chunk(BaseModel):
    """What was computed of consecutive rows; the fields are those of the parquet files (`records`)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    chunk: int
    row: list[int]
    label: list[int]
    predicted: list[int]
    probability: list[float]
    batches: list[Batch]
    chunk_s: float
    chunk_sha256: str
    started: str
    committed: str

    @model_validator(mode="after")
    def _as_many_of_each(self) -> Chunk:
        if len({len(self.row), len(self.label), len(self.predicted), len(self.probability), self._in_batches()}) > 1:
            raise ValueError("a chunk has one label, prediction and probability per row, and its batches have its rows")
        return self

    def _in_batches(self) -> int:
        return sum(batch.rows for batch in self.batches)


def place(run: Path, cell: str) -> Path:
    """Where the chunks of a cell are committed, in a run or in an attempt at a shard of one."""
    return run / "work" / "evaluation" / f"{cell}.jsonl"


class ChunkFile:
    """The chunks of one cell, appended one by one."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @contextmanager
    def held(self) -> Iterator[ChunkFile]:
        """Keeps other processes out, and mends what a kill left.

        A killed parent takes its worker with it, but not before the worker's last write to a slow disk is done.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        busy = f"{self.file} is written by another process"
        with paths.hold_lock(self.file.with_suffix(".lock"), busy, wait=True):
            self._cut_half_line()
            yield self

    def _cut_half_line(self) -> None:
        """Makes the file end with a whole line: the rows of a half one are computed again."""
        if not self.file.exists():
            return
        end = 0
        with self.file.open("rb") as opened:
            for line in opened:
                end += len(line) if line.endswith(b"\n") else 0
        if end < self.file.stat().st_size:
            os.truncate(self.file, end)

    def read(self) -> Iterator[Chunk]:
        """The committed chunks in order, one at a time.

        Raises:
            RunError: a whole line is no chunk, or not the one that comes next.
        """
        if not self.file.exists():
            return
        with self.file.open("rb") as opened:
            for number, line in enumerate(opened):
                try:
                    chunk = Chunk.model_validate_json(line)
                except ValidationError as error:
                    raise RunError(f"{self._line(number)} is damaged: {error.errors()[0]['msg']}") from None
                if chunk.chunk != number:
                    raise RunError(
                        f"{self._line(number)} holds chunk {chunk.chunk}, not {number}: one is missing or twice"
                    )
                yield chunk

    def _line(self, number: int) -> str:
        return f"{self.file}, line {number + 1}"

    def append(self, chunk: Chunk) -> None:
        """Commits a chunk."""
        paths.append_line(self.file, chunk.model_dump_json())


def take_over(run: Path, cell: str) -> None:
    """In an attempt at a shard of a run: begins with the chunks of the earlier attempt that came furthest.

    They are copied, since that attempt may have been believed lost and still be writing.
    """
    own = place(run, cell)
    if own.exists() or not (run / "attempt.json").is_file():
        return
    earlier = [place(attempt, cell) for attempt in run.parent.iterdir() if place(attempt, cell).is_file()]
    if earlier:
        furthest = max(earlier, key=lambda file: file.stat().st_size)
        paths.write_atomic(own, furthest.read_bytes())
