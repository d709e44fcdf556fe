"""The file that an anomaly report is made of, and of nothing else: per batch size its processes and its operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distilbench import paths
from distilbench.errors import RunError

SCHEMA_VERSION = 1
NAME = "batch_profile.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Timed(_Part):
    """What one process says of one batch size, without a profiler."""

    repetition: int = Field(ge=0, description="number of the round in which all sizes were measured")
    latency_ms: float = Field(gt=0, description="median of its synchronised forwards of one batch")


class InputShape(_Part):
    """Calls of an operator with the same inputs."""

    dims: list[Any] = Field(description="dimensions of each input; [] where it is no tensor")
    calls: float = Field(description="per forward")
    ms: float = Field(description="of these calls per forward, as in the operator; profiled")


class Kernel(_Part):
    """A kernel that an operator launched on a GPU."""

    kernel: str
    calls: float = Field(description="per forward")
    ms: float = Field(description="on the device, per forward")


class OperatorTime(_Part):
    """One operator at one batch size."""

    operator: str
    calls: float = Field(description="per forward, in the first process")
    ms: list[float] = Field(description="per profiled process: its own time in a forward; on a GPU its kernels'")
    shapes: list[InputShape] | None = Field(None, description="longest first, in the first process; null: not recorded")
    kernels: list[Kernel] | None = Field(None, description="longest first, in the first process; null: not on a GPU")


class Profiled(_Part):
    """What profiled processes say of one batch size; one entry of each list per process, in the same order."""

    repetitions: list[int]
    forward_ms: list[float] = Field(description="forwards of these processes without the profiler")
    profiled_ms: list[float] = Field(description="forwards in the trace; never a latency")
    operators: list[OperatorTime]

    @model_validator(mode="after")
    def _as_many_of_each(self) -> Profiled:
        counts = {len(self.forward_ms), len(self.profiled_ms), *(len(one.ms) for one in self.operators)}
        if counts != {len(self.repetitions)}:
            raise ValueError("forward_ms, profiled_ms and each operator's ms need one entry per repetition")
        return self


class Size(_Part):
    """One batch size of one curve."""

    batch_size: int = Field(ge=1)
    variant: str
    dtype: str
    length_policy: str
    state: str = Field(description="of its cell in the run, such as ok or unstable")
    processes: list[Timed]
    threads_used: float | None = Field(None, description="CPU threads that shared work, as the kernel has it")
    profiled: Profiled | None = None
    profiled_reason: str | None = Field(None, description="why there are no operators")

    @property
    def curve(self) -> tuple[str, str, str]:
        """What it shares with the sizes that it is compared with."""
        return self.variant, self.dtype, self.length_policy


class BatchProfile(_Part):
    """The whole file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    profiling_run_id: str | None = Field(None, description="the run that the operators are of")
    study: str
    profile: Literal["ci", "smoke", "full"]
    created: str = Field(description="UTC, ISO 8601: when the run began")
    start: Literal["fresh", "forked"] = Field(description="forked: processes share a layout of memory, see the records")
    machine: str
    device: str
    num_threads: int | None = Field(None, description="CPU threads, as they were set")
    model: str
    model_source: str
    software: dict[str, str] = Field(description="versions")
    sizes: list[Size]

    @model_validator(mode="after")
    def _each_size_once(self) -> BatchProfile:
        seen = [(size.curve, size.batch_size) for size in self.sizes]
        if len(set(seen)) != len(seen):
            raise ValueError("a batch size is given twice for one variant, dtype and length policy")
        return self


def read(file: Path) -> BatchProfile:
    """Reads such a file.

    Raises:
        RunError: it is missing, no JSON, or breaks the schema; the message says where.
    """
    content = paths.read_json(file)
    try:
        return BatchProfile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise RunError(
            f"{file} is no profile of batch sizes: {where}: {first['msg'].removeprefix('Value error, ')}. "
            "`distilbench profile-batches --output FILE` writes one."
        ) from None


def write(file: Path, content: BatchProfile) -> None:
    """Writes it whole."""
    paths.write_json(file, content.model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file."""
    return BatchProfile.model_json_schema()
