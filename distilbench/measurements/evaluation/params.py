"""The parameters of an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distilbench.runs.parameters import Count, Heap, LengthPolicy, Threads, Timeout, list_of
from distilbench.sources.parameters import SourceParams


class EvaluationParams(SourceParams):
    """The evaluate study: a classifier on every row of a data set, at one batch size."""

    study: Literal["evaluate"] = "evaluate"
    variants: list_of(Literal["eager", "sdpa", "autocast"]) = Field(
        ["sdpa"], description="ways of executing the same model"
    )
    batch_size: Count = Field(32, description="sentences per forward pass, such as the best one of a benchmark")
    length_policies: list_of(LengthPolicy) = Field(["fixed-128"], description="how sentences are padded within a batch")
    chunk_rows: Count = Field(
        512, description="rows that are committed together, in whole batches: what a kill may cost"
    )
    damaged_rows: Literal["error", "skip"] = Field(
        "error",
        description="a row that cannot be read, or whose label the model has not: error: it is named, and nothing "
        "is evaluated; skip: it is named, counted and left out",
    )
    repetitions: Literal[1] = Field(1, description="processes per cell: each goes over all rows")
    repetition_timeout_s: Timeout = 7 * 24 * 3600.0
    num_threads: Threads = 0
    heap: Heap = "system"

    @property
    def batch_sizes(self) -> list[int]:
        """As a grid of cells asks for them (`sweep.measure.design.grid`)."""
        return [self.batch_size]

    @property
    def rows_per_chunk(self) -> int:
        """Rows of a chunk: whole batches, so that no batch depends on where an evaluation was interrupted."""
        return max(1, self.chunk_rows // self.batch_size) * self.batch_size
