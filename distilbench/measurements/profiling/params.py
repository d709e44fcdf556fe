"""The parameters of a profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distilbench.measurements.sweep.params import MIN_BATCHES
from distilbench.runs.parameters import Count, LengthPolicy, NotNegative, Positive, list_of
from distilbench.sources.parameters import SourceParams


class ProfileParams(SourceParams):
    """The profile study: where the time of a forward goes, per batch size."""

    study: Literal["profile"] = "profile"
    variants: list_of(Literal["eager", "sdpa", "autocast"]) = Field(
        ["sdpa"], description="ways of executing the same model; a compiled one has no layers to time"
    )
    batch_sizes: list_of(Count) = Field([1, 8, 32, 128], description="sentences per forward pass")
    length_policies: list_of(LengthPolicy) = Field(["fixed-128"], description="how sentences are padded within a batch")
    samples_per_cycle: Count = Field(1024, description="sentences in one cycle, the same ones in every cell")
    repetitions: Count = Field(5, description="fresh processes per cell")
    warmup_cycles: Count = Field(2, description="warm-up cycles, at least")
    warmup_seconds: NotNegative = Field(3.0, description="warm-up seconds, at least")
    warmup_max_seconds: NotNegative = Field(
        30.0, description="a cell not settled by then is marked unstable; 0: no proof asked"
    )
    timed_forwards: Count = Field(
        60, description="forwards without a profiler, and as many with a clock at each layer, in turn"
    )
    profiler_wait: Count = Field(1, description="steps before the profiler starts")
    profiler_warmup: Count = Field(2, description="steps that it records and throws away")
    profiler_active: Count = Field(6, description="steps that are in the trace")
    utilisation_s: NotNegative = Field(5.0, description="seconds of forwards in which use of CPU and GPU is sampled")
    ceiling_s: NotNegative = Field(
        1.0, description="seconds for each of the machine's ceilings (matrix products, copying); 0: not measured"
    )
    repetition_timeout_s: Positive = Field(3600.0, description="a repetition is stopped after it")
    num_threads: Annotated[int, Field(ge=0, strict=True)] = Field(0, description="CPU threads; 0: one per usable core")
    heap: Literal["system", "keep"] = Field(
        "system", description="freed memory: system: the C library does as it likes; keep: nothing goes back (glibc)"
    )

    @model_validator(mode="after")
    def _check(self) -> ProfileParams:
        if self.samples_per_cycle < MIN_BATCHES * max(self.batch_sizes):
            raise ValueError(
                f"samples_per_cycle ({self.samples_per_cycle}) must be at least {MIN_BATCHES} times the largest batch "
                f"size ({max(self.batch_sizes)})"
            )
        if self.warmup_max_seconds and self.warmup_max_seconds < self.warmup_seconds:
            raise ValueError(
                f"warmup_max_seconds ({self.warmup_max_seconds:g}) must not be below warmup_seconds "
                f"({self.warmup_seconds:g})"
            )
        return self
