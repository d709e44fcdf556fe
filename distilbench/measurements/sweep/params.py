"""The parameters of a sweep over batch sizes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from distilbench.runs.parameters import (
    Count,
    LengthPolicy,
    NotNegative,
    Positive,
    list_of,
)
from distilbench.sources.parameters import SourceParams

MIN_BATCHES = 8  # per cycle


class DistilbertParams(SourceParams):
    """The distilbert study: sequence classification over a sweep of batch sizes."""

    study: Literal["distilbert"] = "distilbert"
    variants: list_of(Literal["eager", "sdpa", "autocast", "compiled", "slowed-2", "slowed-5", "slowed-10"]) = Field(
        ["sdpa"], description="ways of executing the same model; slowed-N: N % slower on purpose, for calibration"
    )
    batch_sizes: list_of(Count) = Field([1, 2, 4, 8, 16, 32, 64, 128], description="sentences per forward pass")
    length_policies: list_of(LengthPolicy) = Field(
        ["fixed-32", "fixed-128", "longest"], description="how sentences are padded within a batch"
    )
    samples_per_cycle: Count = Field(
        1024, description="sentences in one cycle, the same ones in every cell: 8 batches of the largest size"
    )
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
    warmup_cycles: Count = Field(2, description="warm-up cycles, at least; kept in the file, flagged")
    warmup_seconds: NotNegative = Field(3.0, description="warm-up seconds, at least")
    warmup_max_seconds: NotNegative = Field(
        30.0, description="a cell not settled by then is marked unstable; 0: no proof asked"
    )
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
    ceiling_s: NotNegative = Field(
        1.0, description="seconds for each of the machine's ceilings (matrix products, copying); 0: not measured"
    )
    repetition_timeout_s: Positive = Field(3600.0, description="a repetition is stopped after it")
    num_threads: Annotated[int, Field(ge=0, strict=True)] = Field(0, description="CPU threads; 0: one per usable core")
    heap: Literal["system", "keep"] = Field(
        "system",
        description="freed memory: system: the C library does as it likes; keep: nothing goes back (glibc), so that no "
        "forward pays for fetching it again",
    )

    @model_validator(mode="after")
    def _check(self) -> DistilbertParams:
        if self.samples_per_cycle < MIN_BATCHES * max(self.batch_sizes):
            raise ValueError(
                f"samples_per_cycle ({self.samples_per_cycle}) must be at least {MIN_BATCHES} times the largest batch "
                f"size ({max(self.batch_sizes)}): a cycle goes over {MIN_BATCHES} batches or more, so that no cache "
                "can answer"
            )
        if "energy" in self.passes and self.energy_cells == "best" and "timing" not in self.passes:
            raise ValueError("energy_cells is 'best', which the timing pass finds: ask for it too, or for 'all' cells")
        for least, most in (("warmup_seconds", "warmup_max_seconds"), ("min_seconds", "max_seconds")):
            unproven = most == "warmup_max_seconds" and not self.warmup_max_seconds  # the floors alone count
            if getattr(self, most) < getattr(self, least) and not unproven:
                raise ValueError(
                    f"{most} ({getattr(self, most):g}) must not be below {least} ({getattr(self, least):g})"
                )
        return self
