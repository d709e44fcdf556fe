"""The schema of what a sweep leaves: one JSON line per repetition, and the parquet files beside it.

A line of raw.jsonl is the commit of a repetition: it is written after the files it names, and it holds their SHA-256.
Fields may be added later, nullable; the meaning of a field never changes (`schema_version` says which reader to use).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilbench.runs.rawfiles import read_parquet, write_parquet
from distilbench.runs.records import Cell, Record
from distilbench.runs.states import MEASURED

Pass = Literal["timing", "memory", "energy"]

#: Which pass measures which number; in a line of another pass the number is null, with this said as the reason.
MEASURED_IN: dict[str, Pass] = {
    "latency_ms": "timing",
    "latency_device_ms": "timing",
    "latency_request_ms": "timing",
    "latency_per_sample_ms": "timing",
    "throughput_samples_per_s": "timing",
    "accuracy": "timing",
    "logits_sha256": "timing",
    "peak_rss_MiB": "memory",
    "peak_cuda_allocated_MiB": "memory",
    "peak_cuda_reserved_MiB": "memory",
    "energy_J": "energy",
    "energy_per_sample_J": "energy",
    "energy_net_per_sample_J": "energy",
}


class SweepCell(Cell):
    """One point of the sweep."""

    device: str
    variant: str
    dtype: str
    batch_size: int = Field(ge=1, description="sentences per forward pass")
    length_policy: str = Field(description="fixed-N: padded or cut to N tokens; longest: padded to the batch's longest")
    model_source: str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Warmup(_Part):
    """How the warm-up ended."""

    cycles: int = Field(description="whole cycles before the timed ones")
    seconds: float = Field(description="their forwards together")
    settled: bool | None = Field(
        description="whether its last two half-windows agreed before the cap; null: not asked for"
    )


class Request(_Part):
    """Where the time of a synchronous request goes: medians over one cycle of requests."""

    n: int = Field(description="requests")
    tokenise_ms: float = Field(description="sentences to padded token ids on the host")
    transfer_ms: float = Field(description="token ids to the device; on a CPU there is nothing to copy")
    forward_ms: float = Field(description="one synchronised forward")
    postprocess_ms: float = Field(description="logits to the host, probabilities, the label of each sentence")


class MemorySplit(_Part):
    """Memory by phase, in MiB. Device fields are null on a CPU."""

    started_rss_MiB: float = Field(description="resident with libraries and inputs, before the model")
    loaded_rss_MiB: float = Field(description="resident with the model loaded and every weight touched")
    load_peak_rss_MiB: float | None = Field(None, description="peak while loading")
    first_peak_rss_MiB: float | None = Field(None, description="peak over the first forward")
    steady_peak_rss_MiB: float | None = Field(None, description="peak over one cycle after it")
    delta_rss_MiB: float | None = Field(None, description="peak over all forwards, less the loaded model")
    phases_reason: str | None = Field(None, description="why there are no peaks by phase")
    loaded_cuda_MiB: float | None = Field(None, description="allocated by torch with the model loaded")
    load_peak_cuda_MiB: float | None = None
    first_peak_cuda_MiB: float | None = None
    steady_peak_cuda_MiB: float | None = None
    delta_cuda_MiB: float | None = Field(None, description="peak over all forwards, less the loaded model")
    nvml_process_MiB: float | None = Field(None, description="what NVML says of this process after the cycle")
    nvml_device_MiB: float | None = Field(None, description="what NVML says of the whole device then")
    nvml_reason: str | None = None
    cgroup_peak_MiB: float | None = Field(None, description="memory.peak of the control group, reset before the load")
    cgroup_reason: str | None = None


class EnergyWindow(_Part):
    """One window of the energy pass: whole cycles, fenced at both ends."""

    seconds: float = Field(gt=0)
    samples: int = Field(gt=0, description="sentences classified in it")
    joules: dict[str, float] = Field(description="gross, by source")
    invalid: dict[str, str] = Field(default_factory=dict, description="by source: why it has no joules in this window")


class Energy(_Part):
    """The windows of an energy pass, and the idle baselines around them."""

    windows: list[EnergyWindow]
    idle_before_W: dict[str, float] = Field(description="power at rest with the model loaded, by source")
    idle_after_W: dict[str, float]
    idle_invalid: dict[str, str] = Field(default_factory=dict, description="by source: why it lacks a baseline")
    limits_W: dict[str, float] = Field(
        default_factory=dict, description="by source: the power limits that were set, for a short time included"
    )
    idle_s: float = Field(description="length of each baseline")
    tick_ms: float | None = Field(None, description="time between two updates of the counter")
    counters: dict[str, list[str]] = Field(description="by source: what it is made of")
    notes: list[str] = Field(default_factory=list, description="what a reader of the joules must know")


class Repetition(SweepCell, Record):
    """One line of raw.jsonl: one process that measured one cell in one pass."""

    pass_: Pass = Field(alias="pass")
    latency_ms: float | None = Field(
        None, description="median over timed iterations of one synchronised forward of one batch, host clock"
    )
    latency_ms_reason: str | None = None
    latency_device_ms: float | None = Field(
        None, description="the same between two events on the device's stream, from the first kernel to the last"
    )
    latency_device_ms_reason: str | None = None
    latency_request_ms: float | None = Field(None, description="tokenise, copy, forward, copy back, label; one batch")
    latency_request_ms_reason: str | None = None
    latency_per_sample_ms: float | None = Field(None, description="total time over total sentences")
    latency_per_sample_ms_reason: str | None = None
    throughput_samples_per_s: float | None = Field(None, description="total sentences over total time")
    throughput_samples_per_s_reason: str | None = None
    accuracy: float | None = Field(None, description="share of distinct sentences classified right by this process")
    accuracy_reason: str | None = None
    logits_sha256: str | None = Field(
        None, description="of the float32 logits of the distinct sentences, in the cycle's order"
    )
    logits_sha256_reason: str | None = None
    peak_rss_MiB: float | None = Field(
        None, description="highest resident memory of the process (VmHWM): start, load and one cycle included"
    )
    peak_rss_MiB_reason: str | None = None
    loaded_rss_MiB: float | None = Field(None, description="resident memory once the model is loaded")
    peak_cuda_allocated_MiB: float | None = Field(None, description="torch.cuda.max_memory_allocated after a reset")
    peak_cuda_allocated_MiB_reason: str | None = None
    peak_cuda_reserved_MiB: float | None = Field(None, description="torch.cuda.max_memory_reserved after a reset")
    peak_cuda_reserved_MiB_reason: str | None = None
    energy_J: float | None = Field(None, description="gross energy of the window; of several, their mean")
    energy_J_reason: str | None = None
    energy_per_sample_J: float | None = None
    energy_per_sample_J_reason: str | None = None
    energy_net_per_sample_J: float | None = Field(None, description="idle power subtracted")
    energy_net_per_sample_J_reason: str | None = None
    energy_source: str | None = Field(
        None, description="nvml-counter, nvml-power (sampled), rapl, pyrapl, slurm or modelled"
    )
    throughput_steady_samples_per_s: float | None = Field(
        None, description="total sentences over total time of whole cycles queued without a fence in between"
    )
    throughput_steady_samples_per_s_reason: str | None = None
    warmup: Warmup | None = None
    median_half_width: float | None = Field(
        None, description="stop criterion: half of the t interval over medians of cycles, as a share of their mean"
    )
    request: Request | None = None
    memory: MemorySplit | None = None
    energy: Energy | None = None
    flops_per_cycle: float | None = Field(None, description="of the model's matrix products, counted from its shapes")
    bytes_per_cycle: float | None = Field(None, description="that must move at least: weights once a forward, and ids")

    n_warmup: int | None = Field(None, description="untimed iterations, kept and flagged in the parquet file")
    n_iterations: int | None = Field(None, description="timed iterations")
    n_cycles: int | None = Field(None, description="timed cycles, always whole ones")
    iterations_file: str | None = Field(None, description="parquet file, relative to the run folder")
    iterations_sha256: str | None = None
    padding_share: float | None = Field(None, ge=0, le=1, description="share of the cycle's positions that is padding")
    truncated_share: float | None = Field(
        None, ge=0, le=1, description="share of the cycle's distinct sentences that the length policy cuts"
    )
    truncated_tokens_share: float | None = Field(
        None, ge=0, le=1, description="share of the tokens of these sentences that is cut away"
    )
    model_sha256: str | None = Field(None, description="of the weights file, or of random weights' bytes")
    page_faults_per_iteration: float | None = Field(
        None, description="pages that a timed forward had to fetch from the system (minor faults), on average"
    )
    load_s: float | None = Field(None, description="from the weights on disk to a model that is ready on its device")
    threads_used: int | None = Field(None, description="CPU threads that shared work, as the kernel counts their time")
    threads_used_reason: str | None = None
    product_cores: float | None = Field(None, ge=0, description="CPU time over wall time of a large matrix product")
    quota_periods: int | None = Field(
        None,
        ge=0,
        description="periods of the CPU quota of its control group in which it ran, while it was timed, or its "
        "energy measured (timing and energy pass)",
    )
    throttled_periods: int | None = Field(None, ge=0, description="of these: its quota was used up before their end")
    throttled_s: float | None = Field(None, ge=0, description="for which it was stopped then; each core adds its own")
    quota_reason: str | None = Field(None, description="why no periods of a quota were counted")

    @model_validator(mode="after")
    def _null_needs_reason(self) -> Repetition:
        """A number is measured or absent with a reason; a bare null is a bug in the writer."""
        for name, where in MEASURED_IN.items():
            value, reason = getattr(self, name), getattr(self, f"{name}_reason")
            if value is not None and reason is not None:
                raise ValueError(f"{name} has both a value and a reason for having none")
            if value is None and reason is None:
                if where != self.pass_:
                    setattr(self, f"{name}_reason", f"measured in the {where} pass")
                elif self.status in ("ok", "unstable"):
                    raise ValueError(f"{name} is null without a reason")
                else:
                    setattr(self, f"{name}_reason", f"the repetition ended as {self.status}")
        return self

    @property
    def files(self) -> dict[str, str]:
        """Its iterations."""
        return {self.iterations_file: self.iterations_sha256} if self.iterations_file else {}

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        what = (
            f"{'control: ' if self.control_of else ''}{self.variant} {self.length_policy} "
            f"batch {self.batch_size}, {self.pass_} {self.repetition + 1}: "
        )
        if self.status not in MEASURED:
            return what + f"{self.status.upper()} {self.error}"
        if self.pass_ == "timing":
            unstable = ", UNSTABLE (not settled when the warm-up was cut off)" if self.status == "unstable" else ""
            return what + f"{self.latency_ms:.2f} ms, {self.throughput_samples_per_s:.1f} samples/s{unstable}"
        if self.pass_ == "energy":
            return what + f"{self.energy_per_sample_J:.3g} J per sample ({self.energy_source})"
        return what + f"peak {self.peak_rss_MiB:.0f} MiB"


def replace_predictions(folder: Path, cells: set[str], rows: list[dict[str, Any]]) -> None:
    """Writes the predictions of cells in the place of what a run has of them."""
    file = folder / "predictions.parquet"
    others = [row for row in read_parquet(file) if row["cell"] not in cells] if file.is_file() else []
    write_parquet(file, others + rows, PREDICTIONS)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of raw.jsonl."""
    return Repetition.model_json_schema(by_alias=True)


ITERATIONS = pa.schema(
    [
        ("cycle", pa.int32()),
        ("batch", pa.int32()),
        ("warmup", pa.bool_()),
        ("samples", pa.int32()),
        ("latency_ms", pa.float64()),
        ("latency_device_ms", pa.float64()),
        ("kind", pa.string()),  # forward; request: with the three columns below; steady: a whole cycle without fences
        ("tokenise_ms", pa.float64()),
        ("transfer_ms", pa.float64()),
        ("postprocess_ms", pa.float64()),
        ("page_faults", pa.int64()),  # of a cycle of forwards, on its last iteration
        # On the last iteration of a block (whole cycles, a second or more): what the machine did meanwhile.
        ("foreign_cores", pa.float64()),
        ("stolen_cores", pa.float64()),
        ("cpu_MHz", pa.float64()),
        ("cpu_temperature_C", pa.float64()),
        ("cpu_throttles", pa.int64()),
        ("gpu_sm_MHz", pa.float64()),
        ("gpu_temperature_C", pa.float64()),
        ("gpu_power_W", pa.float64()),
        ("gpu_throttle_reasons", pa.int64()),
        ("gpu_foreign_processes", pa.int64()),
    ]
)
PREDICTIONS = pa.schema(
    [
        ("cell", pa.string()),
        ("sample", pa.string()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
        ("logits", pa.list_(pa.float32())),
    ]
)
