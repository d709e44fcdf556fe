"""The parameters of a profile."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distilbench.measurements.sweep.params import (
    CeilingSeconds,
    WarmupCycles,
    WarmupMaxSeconds,
    WarmupSeconds,
    check_cycle,
)
from distilbench.runs.parameters import Count, Heap, LengthPolicy, NotNegative, Threads, Timeout, list_of
from distilbench.sources.parameters import SourceParams


class ProfileParams(SourceParams):
    """The profile study: where the time of a forward goes, per batch size."""

    study: str = "profile"  # or one that has a profile as a section
    variants: list_of(Literal["eager", "sdpa", "autocast"]) = Field(
        ["sdpa"], description="ways of executing the same model; a compiled one has no layers to time"
    )
    batch_sizes: list_of(Count) = Field([1, 8, 32, 128], description="sentences per forward pass")
    length_policies: list_of(LengthPolicy) = Field(["fixed-128"], description="how sentences are padded within a batch")
    samples_per_cycle: Count = Field(1024, description="sentences in one cycle, the same ones in every cell")
    repetitions: Count = Field(5, description="fresh processes per cell")
    warmup_cycles: WarmupCycles = 2
    warmup_seconds: WarmupSeconds = 3.0
    warmup_max_seconds: WarmupMaxSeconds = 30.0
    timed_forwards: Count = Field(
        60, description="forwards without a profiler, and as many with a clock at each layer, in turn"
    )
    profiler_wait: Count = Field(1, description="steps before the profiler starts")
    profiler_warmup: Count = Field(2, description="steps that it records and throws away")
    profiler_active: Count = Field(6, description="steps that are in the trace")
    utilisation_s: NotNegative = Field(5.0, description="seconds of forwards in which use of CPU and GPU is sampled")
    ceiling_s: CeilingSeconds = 1.0
    repetition_timeout_s: Timeout = 3600.0
    num_threads: Threads = 0
    heap: Heap = "system"

    @model_validator(mode="after")
    def _check(self) -> ProfileParams:
        check_cycle(self)
        return self
