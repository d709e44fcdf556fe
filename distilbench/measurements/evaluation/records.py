"""A line of evaluation.jsonl, and the parquet files beside it."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilbench.measurements.sweep.records import SweepCell
from distilbench.runs.records import RecordWithFiles
from distilbench.runs.states import MEASURED

FOLDER = "evaluation"
PASS = "evaluate"
RANDOM = "random weights: no accuracy"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class OfClass(_Part):
    """What the model does with the rows of one class; null where nothing is divided by."""

    label: str
    support: int = Field(ge=0, description="rows that have this label")
    predicted: int = Field(ge=0, description="rows that the model gives it")
    precision: float | None = Field(description="of those predicted, the share that has it; null: none was predicted")
    recall: float | None = Field(description="of those that have it, the share that is predicted; null: none has it")
    f1: float | None = Field(description="harmonic mean of both; null: no row has it, and none was predicted")


class BatchTimes(_Part):
    """Times of synchronised forwards, one per batch."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class EvaluationRecord(SweepCell, RecordWithFiles):
    """One line of evaluation.jsonl: one classifier on all rows of a data set.

    An evaluation that was interrupted goes on after its last committed chunk: `processes` counts those whose chunks
    are in it. Batches are made of the same rows wherever it was interrupted.
    """

    pass_: Literal["evaluate"] = Field(alias="pass")
    rows: int | None = Field(None, description="that were classified, each once")
    rows_damaged: int | None = Field(
        None, description="that could not be used, and were left out; data.json names them"
    )
    rows_sha256: str | None = Field(None, description="of the hashes of all chunks of rows, in order")
    label_names: list[str] = Field(default_factory=list, description="of the model, in the order of its logits")
    accuracy: float | None = Field(None, description="rows whose label was predicted, over all rows")
    accuracy_wilson_95: list[float] | None = Field(None, description="Wilson's interval of the accuracy")
    macro_f1: float | None = Field(
        None, description="mean over the classes that occur among labels or predictions (scikit-learn's default)"
    )
    weighted_f1: float | None = Field(None, description="mean over classes, weighted by their rows")
    accuracy_reason: str | None = Field(None, description="why there is none of these, nor what is by class")
    per_class: list[OfClass] = Field(default_factory=list, description="in the order of label_names")
    confusion: dict[str, dict[str, int]] | None = Field(None, description="rows by true label, then by predicted one")
    batches: int | None = None
    total_s: float | None = Field(
        None, description="reading, tokenising and forwards of all rows, without loads and interruptions"
    )
    elapsed_s: float | None = Field(None, description="from the first process's start to the last commit, by the clock")
    forward_s: float | None = Field(None, description="of total_s: synchronised forwards")
    tokenise_s: float | None = Field(None, description="of total_s: from text to tensors on the device")
    throughput_samples_per_s: float | None = Field(None, description="rows over total_s")
    throughput_batches_per_s: float | None = Field(None, description="batches over total_s")
    batch_ms: float | None = Field(None, description="median of a synchronised forward of a whole batch")
    batch_times_ms: BatchTimes | None = Field(None, description="of the forwards of whole batches")
    tokens: int | None = Field(None, description="that the model was given, without padding")
    padding_share: float | None = Field(None, ge=0, le=1, description="share of positions that is padding")
    truncated_share: float | None = Field(None, ge=0, le=1, description="share of rows that the length policy cuts")
    processes: int | None = Field(None, ge=1, description="whose chunks count; more than one: it was interrupted")
    load_s: float | None = Field(None, description="of the last process: from the weights on disk to a model in place")
    model_sha256: str | None = None
    peak_rss_MiB: float | None = Field(
        None, description="highest resident memory of the last process, while it classified"
    )
    peak_cuda_allocated_MiB: float | None = Field(None, description="highest of the last process; null on a CPU")
    threads_used: int | None = None
    threads_used_reason: str | None = None
    product_cores: float | None = None

    @model_validator(mode="after")
    def _measured_has_numbers(self) -> EvaluationRecord:
        if self.status in MEASURED and not (self.rows and self.total_s and self.files_sha256):
            raise ValueError("a measured evaluation has rows, times and files")
        return self

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        what = f"{self.variant} {self.length_policy} batch {self.batch_size}: "
        if self.status not in MEASURED:
            return what + f"{self.status.upper()} {self.error}"
        quality = f"accuracy {self.accuracy:.4f}, macro F1 {self.macro_f1:.4f}" if self.confusion else RANDOM
        return what + f"{self.rows:,} rows, {quality}, {self.throughput_samples_per_s:.1f} samples/s"


def predictions_name(cell: str) -> str:
    """The file of a cell's predictions, below the run folder."""
    return f"{FOLDER}/{cell}.predictions.parquet"


def batches_name(cell: str) -> str:
    """The file of a cell's batches, below the run folder."""
    return f"{FOLDER}/{cell}.batches.parquet"


PREDICTIONS = pa.schema(
    [
        ("row", pa.int64()),  # its number in the data, from 1
        ("label", pa.int32()),  # index into label_names
        ("predicted", pa.int32()),  # of the highest logit
        ("probability", pa.float32()),  # that the model gives it, to four decimals: the file of many rows stays small
    ]
)
BATCHES = pa.schema(
    [
        ("batch", pa.int64()),
        ("chunk", pa.int64()),
        ("rows", pa.int32()),
        ("tokens", pa.int64()),  # without padding
        ("positions", pa.int64()),  # with it
        ("cut", pa.int32()),  # rows that were cut
        ("tokenise_ms", pa.float64()),
        ("forward_ms", pa.float64()),
        ("device_ms", pa.float64()),
        ("chunk_s", pa.float64()),  # the last four stand with the last batch of a chunk
        ("chunk_sha256", pa.string()),  # of its rows
        ("started", pa.string()),  # of the process that computed it, UTC
        ("committed", pa.string()),  # UTC
    ]
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of evaluation.jsonl."""
    return EvaluationRecord.model_json_schema(by_alias=True)
