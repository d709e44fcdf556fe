"""A line of training.jsonl, and the parquet files beside it."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilbench.runs.records import Cell, RecordWithFiles
from distilbench.runs.states import MEASURED

FOLDER = "training"
STEPS, TRAIN, LOOP = "steps", "train", "loop"
#: Blocks of steps in turn: the training's own, and a bare loop over the same tensors.
BLOCKS = pa.schema(
    [
        ("block", pa.int32()),
        ("kind", pa.string()),  # training or bare
        ("steps", pa.int32()),
        ("rows", pa.int64()),
        ("seconds", pa.float64()),
    ]
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TrainingCell(Cell):
    """A configuration: so many processes, with so many rows each."""

    processes: int = Field(ge=1, description="that train together")
    scaling: Literal["one", "strong", "weak"] = Field(
        description="against one process: strong: as many rows per step; weak: as many rows per process"
    )
    batch_size: int = Field(ge=1, description="rows per forward of a process")
    rows_per_step: int = Field(ge=1, description="rows of an optimizer step over all processes")


class StepTimes(_Part):
    """Times of a step, each that of the process that took longest."""

    mean: float
    p50: float
    p90: float
    max: float


class Shares(_Part):
    """Shares of the time of all timed steps, over all processes."""

    data: float = Field(description="of the loader and the copy to the device")
    forward: float
    backward: float = Field(description="with what it waits for gradients of other processes")
    optimizer: float = Field(description="clipping and update")
    allreduce: float = Field(description="in which gradients were under way, beside the backward pass")


class Epoch(_Part):
    """An epoch of a training."""

    epoch: int = Field(ge=1)
    steps: int
    steps_skipped: int = Field(description="whose scaled gradients were not finite (float16)")
    rows: int
    seconds: float = Field(description="wall time of its steps, without evaluation")
    training_loss: float = Field(description="mean over its rows, while they were trained on")
    training_accuracy: float = Field(description="of its rows, while they were trained on, with dropout")
    validation_accuracy: float | None = Field(description="after it; null: not evaluated")
    validation_rows: int | None
    validation_loss: float | None = Field(description="as it was logged; mean over rows")
    evaluation_s: float | None
    energy_J: float | None = Field(description="of all processes during its steps; null: see energy_reason")
    energy_source: str | None
    energy_scope: str | None = Field(
        description="what the source counts: gpu, host (others' work too), nodes of the job"
    )
    energy_reason: str | None


class TrainingRecord(TrainingCell, RecordWithFiles):
    """One line of training.jsonl: a group of processes that timed steps, trained to the end, or ran a bare loop."""

    pass_: Literal["steps", "train", "loop"] = Field(
        alias="pass", description="steps: timed; train: a whole training; loop: steps against a bare loop"
    )
    device: str | None = Field(None, description="cpu or cuda")
    backend: str | None = Field(None, description="of the gradients' all-reduce: nccl, gloo; none: one process")
    dtype: str | None = None
    precision: str | None = Field(None, description="type of the products")
    threads_per_process: int | None = None
    cores_of_processes: list[list[int]] = Field(default_factory=list, description="CPUs of each process")
    gpus: list[str] = Field(default_factory=list, description="GPU of each process; none on a CPU")
    peak_rss_MiB: list[float] = Field(default_factory=list, description="highest resident memory of each process")
    peak_cuda_allocated_MiB: list[float] = Field(default_factory=list, description="highest of each process; none: CPU")
    parameters: int | None = Field(None, description="of the model")
    # steps and train
    warmup_steps: int | None = Field(None, description="first steps that do not count; 0 in a whole training")
    timed_steps: int | None = None
    throughput_samples_per_s: float | None = Field(
        None, description="rows of all processes, from the start of the first timed step to the end of the last one"
    )
    step_ms: float | None = Field(None, description="median of a timed step")
    step_times_ms: StepTimes | None = None
    shares: Shares | None = None
    padding_share: float | None = Field(None, ge=0, le=1, description="share of positions that is padding")
    # train
    trained_on: str | None = None
    epochs: list[Epoch] = Field(default_factory=list)
    best_epoch: int | None = Field(None, description="by validation accuracy; its weights are tested and kept")
    test_accuracy: float | None = Field(None, description="of the best epoch's weights on the test rows, each once")
    test_rows: int | None = None
    test_wilson_95: list[float] | None = None
    label_names: list[str] = Field(default_factory=list)
    training_s: float | None = Field(None, description="of all epochs, without evaluations")
    interruptions: int | None = Field(None, description="how often it was gone on with after an interruption")
    checkpoint_sha256: dict[str, str] = Field(default_factory=dict, description="by name; not published")
    # loop
    loop_samples_per_s: float | None = Field(None, description="of the bare loop: median over blocks")
    loop_share: float | None = Field(
        None, description="samples/s of the training over those of the bare loop: median over pairs of blocks"
    )
    loop_share_95: list[float] | None = Field(None, description="t interval over these pairs, on logarithms")

    @model_validator(mode="after")
    def _measured_has_numbers(self) -> TrainingRecord:
        needed = {STEPS: self.throughput_samples_per_s, TRAIN: self.test_rows, LOOP: self.loop_share}[self.pass_]
        if self.status in MEASURED and not (needed and self.files_sha256):
            raise ValueError(f"a measured record of pass {self.pass_} has its numbers and files")
        return self

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        what = f"{self.cell}, {self.pass_} {self.repetition + 1}: "
        if self.status not in MEASURED:
            return what + f"{self.status.upper()} {self.error}"
        if self.pass_ == TRAIN:
            return what + f"test accuracy {self.test_accuracy:.4f} over {self.test_rows:,} rows"
        if self.pass_ == LOOP:
            return what + f"{self.loop_share:.1%} of the samples/s of a bare loop"
        return what + f"{self.throughput_samples_per_s:.1f} samples/s, a step {self.step_ms:.1f} ms"


def file_name(cell: str, pass_name: str, repetition: int, what: str) -> str:
    """A file of a record, below the run folder."""
    return f"{FOLDER}/{cell}-{pass_name}-{repetition:02d}.{what}.parquet"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of training.jsonl."""
    return TrainingRecord.model_json_schema(by_alias=True)
