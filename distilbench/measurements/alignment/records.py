"""A line of alignment.jsonl, and the parquet file beside it."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilbench.measurements.alignment.params import AlignmentParams
from distilbench.runs.records import Cell, RecordWithFiles
from distilbench.runs.states import MEASURED

FOLDER = "iterations"
TIMING = "timing"
ATTENTION = "attention"
ITERATIONS = pa.schema(
    [
        ("round", pa.int32()),
        ("warmup", pa.bool_()),
        ("dimension", pa.int32()),
        ("latency_ms", pa.float64()),  # of one operation, on the host's clock
        ("latency_device_ms", pa.float64()),  # between events of the device; null on a CPU
    ]
)


class AlignmentCell(Cell):
    """An operation at all dimensions: they alternate in one process, so that none has all of a disturbance."""

    operation: Literal["down", "up", "attention"]


class AtDimension(BaseModel):
    """What one dimension took."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    dimension: int
    n: int = Field(description="timed rounds")
    latency_ms: float = Field(description="median of them")
    latency_device_ms: float | None = Field(None, description="the same between events of the device")


class AlignmentRecord(AlignmentCell, RecordWithFiles):
    """One line of alignment.jsonl: one fresh process that timed one operation at all dimensions."""

    pass_: Literal["timing"] = Field(alias="pass")
    device: str | None = None
    dtype: str | None = None
    times: list[AtDimension] = Field(default_factory=list, description="by dimension, ascending")
    mean_ms: float | None = Field(None, description="mean of the medians over all dimensions")
    largest_over_smallest: float | None = Field(None, description="time at the largest dimension over the smallest's")
    peak_rss_MiB: float | None = None
    threads_used: int | None = None
    threads_used_reason: str | None = None
    product_cores: float | None = None

    @model_validator(mode="after")
    def _measured_has_numbers(self) -> AlignmentRecord:
        if self.status in MEASURED and not (self.times and self.mean_ms and self.files_sha256):
            raise ValueError("a measured record has its times and its file")
        return self

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        what = f"{self.cell} {self.repetition + 1}: "
        if self.status not in MEASURED:
            return what + f"{self.status.upper()} {self.error}"
        first, last = self.times[0], self.times[-1]
        return what + f"{first.latency_ms:.3f} ms at {first.dimension}, {last.latency_ms:.3f} ms at {last.dimension}"


def cells(params: AlignmentParams) -> list[AlignmentCell]:
    """One per operation."""
    return [AlignmentCell(cell=operation, operation=operation) for operation in params.operations]


def file_name(cell: str, repetition: int) -> str:
    """The file of a record, below the run folder."""
    return f"{FOLDER}/{cell}-{repetition:02d}.parquet"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of alignment.jsonl."""
    return AlignmentRecord.model_json_schema(by_alias=True)
