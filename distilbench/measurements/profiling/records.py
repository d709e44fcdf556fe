"""A line of profile.jsonl, and the parquet files beside it."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilbench.measurements.sweep.records import Request, SweepCell, Warmup
from distilbench.runs.records import RecordWithFiles
from distilbench.runs.states import MEASURED

FOLDER = "profiler_traces"
PASS = "profile"
TRACE, STACKS, SNAPSHOT = "trace.json", "stacks.txt", "memory.pickle"
EVENTS, TIMELINE = "events.parquet", "memory.parquet"  # both follow from the trace, and the second from the first


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class InputShape(_Part):
    """Calls of an operator with inputs of the same dimensions."""

    dims: list[Any] = Field(description="of each input; [] where it is no tensor")
    calls: float = Field(description="per forward")
    ms: float = Field(
        description="of these calls per forward: on a CPU their own time, on a GPU their kernels'; profiled"
    )


class Kernel(_Part):
    """A kernel that an operator launched on a GPU."""

    kernel: str
    calls: float = Field(description="per forward")
    ms: float = Field(description="on the device, per forward")


class Operator(_Part):
    """What one operator takes in a forward; times are medians over the profiled forwards."""

    operator: str
    calls: float = Field(description="per forward")
    self_ms: float = Field(description="of all its calls, without the operators that these call; profiled")
    work_ms: float = Field(
        description="on a CPU its own time without what a call costs that does nothing; on a GPU its kernels"
    )
    flops: float = Field(description="of its matrix products, per forward, counted from the shapes")
    bytes: float = Field(description="that it reads and writes where no cache holds them, per forward")
    allocated_MiB: float = Field(description="memory that it takes, per forward")
    shapes: list[InputShape] | None = Field(
        None, description="those that take most, longest first; null: it does no work, or from before this was recorded"
    )
    kernels: list[Kernel] | None = Field(
        None, description="those that take most, longest first; null: none on a GPU, or from before this was recorded"
    )


class Layer(_Part):
    """What one layer takes in a forward, measured without the profiler."""

    layer: str
    ms: float = Field(description="median over forwards")


class Peak(_Part):
    """Memory of an operator's results at the moment when most was held."""

    operator: str
    MiB: float


class Utilisation(_Part):
    """Use of the machine over forwards one after the other; means of samples."""

    samples: int
    cpu_cores: float = Field(description="cores that this process used")
    gpu_share: float | None = Field(None, description="share of the time in which a kernel ran, as NVML says")
    gpu_memory_share: float | None = Field(None, description="share of the time in which memory was read or written")
    gpu_reason: str | None = None


class ProfileRecord(SweepCell, RecordWithFiles):
    """One line of profile.jsonl: one fresh process that profiled one cell.

    `forward_ms` is of forwards that nobody profiled: a profiled time is longer, by `slow_down`, and is no latency.
    """

    pass_: Literal["profile"] = Field(alias="pass")
    forward_ms: float | None = Field(None, description="median of synchronised forwards without profiler or hooks")
    profiled_ms: float | None = Field(None, description="median of the forwards in the trace; never a latency")
    slow_down: float | None = Field(None, description="profiled_ms over forward_ms: what the profiler costs")
    null_us: float | None = Field(None, description="median call of an operator on one element, profiled")
    operator_calls: float | None = Field(None, description="calls of operators per forward")
    operators: list[Operator] = Field(default_factory=list, description="longest work first")
    gpu_busy_ms: float | None = Field(None, description="time with a kernel on the device, per profiled forward")
    gpu_busy_ms_reason: str | None = None
    layers: list[Layer] = Field(default_factory=list, description="in the order in which they run")
    layers_ratio: float | None = Field(None, description="sum of the layers, and of what is between, over forward_ms")
    outside_share: float | None = Field(None, description="share of that sum that is in no layer")
    request: Request | None = None
    peak_MiB: float | None = Field(None, description="most memory that results held during a forward, without weights")
    peak_by: list[Peak] = Field(default_factory=list, description="whose results that was, most first")
    peak_rss_MiB: float | None = Field(None, description="highest resident memory of the process, profiler included")
    utilisation: Utilisation | None = None
    warmup: Warmup | None = None
    load_s: float | None = Field(None, description="from the weights on disk to a model that is ready on its device")
    model_sha256: str | None = None
    padding_share: float | None = Field(None, ge=0, le=1)
    threads_used: int | None = None
    threads_used_reason: str | None = None
    product_cores: float | None = None
    snapshot_reason: str | None = Field(None, description="why there is no snapshot of the GPU's memory")

    @model_validator(mode="after")
    def _measured_has_numbers(self) -> ProfileRecord:
        if self.status in MEASURED and not (self.forward_ms and self.profiled_ms and self.files_sha256):
            raise ValueError("a measured profile has times and files")
        return self

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        what = f"{self.variant} {self.length_policy} batch {self.batch_size}, {self.pass_} {self.repetition + 1}: "
        if self.status not in MEASURED:
            return what + f"{self.status.upper()} {self.error}"
        return what + f"forward {self.forward_ms:.2f} ms; the profiler makes it {self.slow_down:.2f} times as long"

    @property
    def events(self) -> str:
        """The name of the file from which its profiled numbers follow."""
        return next((name for name in self.files_sha256 if name.endswith(EVENTS)), None) or self.file(TRACE)

    def file(self, ending: str) -> str:
        """The name of its file with that ending."""
        return next(name for name in self.files_sha256 if name.endswith(ending))


def bulky(profiles: list[ProfileRecord]) -> tuple[list[str], list[str]]:
    """What a published run has of the trace's files.

    Of the first process of each cell the events, from which the record's numbers follow, the timeline of its memory
    too; of the run's first process also that timeline, the trace and the stacks, the latter two packed.

    Returns:
        (names of the files that are left out, names of those that are packed)
    """
    first = {one.cell: one.repetition for one in reversed(profiles) if one.status in MEASURED}
    left_out, packed = [], []
    for one in profiles:
        is_first = first.get(one.cell) == one.repetition
        for name in one.files_sha256:
            if name in (f"{FOLDER}/{TRACE}", f"{FOLDER}/{STACKS}"):
                packed.append(name)
            elif (
                name.endswith((TRACE, STACKS, SNAPSHOT))
                or (name.endswith(EVENTS) and not is_first)
                or (name.endswith(TIMELINE) and name != f"{FOLDER}/{TIMELINE}")
            ):
                left_out.append(name)
    return left_out, packed


FORWARDS = pa.schema(
    [
        ("kind", pa.string()),  # plain; request: with the three columns below; warmup
        ("cycle", pa.int32()),
        ("batch", pa.int32()),
        ("latency_ms", pa.float64()),
        ("latency_device_ms", pa.float64()),
        ("tokenise_ms", pa.float64()),
        ("transfer_ms", pa.float64()),
        ("postprocess_ms", pa.float64()),
    ]
)
LAYERS = pa.schema([("forward", pa.int32()), ("layer", pa.string()), ("ms", pa.float64())])
SAMPLES = pa.schema(
    [
        ("at_s", pa.float64()),
        ("cpu_cores", pa.float64()),
        ("gpu_share", pa.float64()),
        ("gpu_memory_share", pa.float64()),
    ]
)
MEMORY = pa.schema(
    [
        ("forward", pa.int32()),
        ("at_us", pa.float64()),
        ("bytes", pa.int64()),
        ("held_bytes", pa.int64()),
        ("operator", pa.string()),
    ]
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of profile.jsonl."""
    return ProfileRecord.model_json_schema(by_alias=True)
