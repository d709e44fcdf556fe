"""The parameters of a sweep over batch sizes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from distilbench.runs.parameters import Count, Heap, LengthPolicy, NotNegative, Positive, Threads, Timeout, list_of
from distilbench.sources.parameters import SourceParams

MIN_BATCHES = 8  # per cycle
# what every kind has that executes forwards over a cycle of batches
WarmupCycles = Annotated[Count, Field(description="warm-up cycles, at least; kept in the file, flagged")]
WarmupSeconds = Annotated[NotNegative, Field(description="warm-up seconds, at least")]
WarmupMaxSeconds = Annotated[
    NotNegative, Field(description="a cell not settled by then is marked unstable; 0: no proof asked")
]
CeilingSeconds = Annotated[
    NotNegative,
    Field(description="seconds for each of the machine's ceilings (matrix products, copying); 0: not measured"),
]


BatchesPerCycle = Annotated[
    Count | None,
    Field(
        description="batches in every cell's cycle, so that small batch sizes take no longer than large ones; only "
        "where all batches cost the same (fixed-N); empty: every cell goes over all samples_per_cycle sentences"
    ),
]


def check_cycle(params: Any) -> None:
    """What the fields of a cycle of batches must be to each other.

    Raises:
        ValueError: the cycle is too short, its batches differ in cost, or the warm-up's cap is below its floor.
    """
    if params.samples_per_cycle < MIN_BATCHES * max(params.batch_sizes):
        raise ValueError(
            f"samples_per_cycle ({params.samples_per_cycle}) must be at least {MIN_BATCHES} times the largest batch "
            f"size ({max(params.batch_sizes)}): a cycle goes over {MIN_BATCHES} batches or more, so that no cache "
            "can answer"
        )
    if (batches := params.batches_per_cycle) is not None:
        if batches < MIN_BATCHES:
            raise ValueError(
                f"batches_per_cycle ({batches}) must be at least {MIN_BATCHES}, so that no cache can answer"
            )
        if "longest" in params.length_policies:
            raise ValueError(
                "batches_per_cycle needs length_policies of the kind fixed-N: at 'longest' batches differ in cost, and "
                "cells that go over different sentences could not be compared"
            )
    if params.warmup_max_seconds:  # else no proof is asked, and the floors alone count
        check_cap(params, "warmup_seconds", "warmup_max_seconds")


def check_cap(params: Any, least: str, most: str) -> None:
    """A cap must not be below its floor.

    Raises:
        ValueError: it is.
    """
    if getattr(params, most) < getattr(params, least):
        raise ValueError(f"{most} ({getattr(params, most):g}) must not be below {least} ({getattr(params, least):g})")


class SweepParams(SourceParams):
    """What every study of a sweep has: sequence classification over batch sizes, lengths and variants."""

    BASELINE: ClassVar[bool] = False  # whether its runs get the files of a baseline (`show.baseline`)
    variants: list_of(
        Literal["eager", "sdpa", "packed", "autocast", "compiled", "slowed-2", "slowed-5", "slowed-10"]
    ) = Field(
        ["sdpa"], description="ways of executing the same model; slowed-N: N % slower on purpose, for calibration"
    )
    batch_sizes: list_of(Count) = Field([1, 2, 4, 8, 16, 32, 64, 128], description="sentences per forward pass")
    length_policies: list_of(LengthPolicy) = Field(
        ["fixed-32", "fixed-128", "longest"], description="how sentences are padded within a batch"
    )
    samples_per_cycle: Count = Field(
        1024, description="sentences in one cycle, the same ones in every cell: 8 batches of the largest size"
    )
    batches_per_cycle: BatchesPerCycle = None
    passes: list_of(Literal["timing", "memory", "energy"]) = Field(
        ["timing", "memory", "energy"], description="what is measured"
    )
    control: bool = Field(
        True, description="measure one cell under a second name too: how much two equal things differ in this run"
    )
    repetitions: Count = Field(10, description="processes per cell in the timing pass")
    memory_repetitions: Count = Field(3, description="fresh processes per cell in the memory pass")
    fresh_processes: bool = Field(
        True,
        description="timing pass on a CPU: each repetition imports its libraries; false: one process has, and forks "
        "them, which saves time and shares its layout of memory: for no interval",
    )
    warmup_cycles: WarmupCycles = 2
    warmup_seconds: WarmupSeconds = 3.0
    warmup_max_seconds: WarmupMaxSeconds = 30.0
    min_cycles: Count = Field(2, description="timed cycles per repetition, at least")
    min_iterations: Count = Field(16, description="timed iterations per repetition, at least")
    min_seconds: NotNegative = Field(3.0, description="timed seconds per repetition, at least")
    half_width: NotNegative = Field(
        0.01, description="a repetition ends once the 95 % interval of its median is this narrow, as a share of it"
    )
    max_seconds: NotNegative = Field(30.0, description="a repetition ends after this, however wide the interval is")
    energy_cells: Literal["all", "best"] = Field(
        "all", description="cells of the energy pass; best: only the one with the highest throughput"
    )
    energy_windows: Count = Field(5, description="windows per cell in the energy pass; an interval needs five")
    energy_window_s: Positive = Field(10.0, description="seconds per window, at least; and 100 ticks of the counter")
    energy_idle_s: Positive = Field(10.0, description="seconds of idle baseline, before the windows and after them")
    modelled_power_W: Positive | None = Field(
        None, description="where no counter is: power to multiply with the duration; then all energy is `modelled`"
    )
    ceiling_s: CeilingSeconds = 1.0
    repetition_timeout_s: Timeout = 3600.0
    num_threads: Threads = 0
    heap: Heap = "system"

    @model_validator(mode="after")
    def _check(self) -> SweepParams:
        check_cycle(self)
        check_cap(self, "min_seconds", "max_seconds")
        if "energy" in self.passes and self.energy_cells == "best" and "timing" not in self.passes:
            raise ValueError("energy_cells is 'best', which the timing pass finds: ask for it too, or for 'all' cells")
        return self


class DistilbertParams(SweepParams):
    """The distilbert study."""

    study: Literal["distilbert"] = "distilbert"
