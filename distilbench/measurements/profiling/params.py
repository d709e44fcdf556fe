"""The parameters of a profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distilbench.measurements.sweep.params import (
    BatchesPerCycle,
    CeilingSeconds,
    DistilbertParams,
    SweepParams,
    WarmupCycles,
    WarmupMaxSeconds,
    WarmupSeconds,
    check_cycle,
)
from distilbench.runs.parameters import Count, Heap, LengthPolicy, NotNegative, Source, Threads, Timeout, list_of
from distilbench.sources.parameters import SourceParams

TimedForwards = Annotated[
    Count, Field(description="forwards without a profiler, and as many with a clock at each layer, in turn")
]
ActiveSteps = Annotated[Count, Field(description="steps that are in the trace")]
UtilisationSeconds = Annotated[
    NotNegative, Field(description="seconds of forwards in which use of CPU and GPU is sampled")
]


class ProfileParams(SourceParams):
    """The profile study: where the time of a forward goes, per batch size."""

    study: str = "profile"  # or one that has a profile as a section
    variants: list_of(Literal["eager", "sdpa", "autocast"]) = Field(
        ["sdpa"], description="ways of executing the same model; a compiled one has no layers to time"
    )
    batch_sizes: list_of(Count) = Field([1, 8, 32, 128], description="sentences per forward pass")
    length_policies: list_of(LengthPolicy) = Field(["fixed-128"], description="how sentences are padded within a batch")
    samples_per_cycle: Count = Field(1024, description="sentences in one cycle, the same ones in every cell")
    batches_per_cycle: BatchesPerCycle = None
    repetitions: Count = Field(5, description="fresh processes per cell")
    warmup_cycles: WarmupCycles = 2
    warmup_seconds: WarmupSeconds = 3.0
    warmup_max_seconds: WarmupMaxSeconds = 30.0
    timed_forwards: TimedForwards = 60
    profiler_wait: Count = Field(1, description="steps before the profiler starts")
    profiler_warmup: Count = Field(2, description="steps that it records and throws away")
    profiler_active: ActiveSteps = 6
    utilisation_s: UtilisationSeconds = 5.0
    ceiling_s: CeilingSeconds = 1.0
    repetition_timeout_s: Timeout = 3600.0
    num_threads: Threads = 0
    heap: Heap = "system"

    @model_validator(mode="after")
    def _check(self) -> ProfileParams:
        check_cycle(self)
        return self


class BatchesParams(DistilbertParams):
    """The batches study: each batch size timed as in a sweep, then its operators, in a section."""

    SECTIONS = ("profiling",)
    study: Literal["batches"] = "batches"
    batch_sizes: list_of(Count) = Field(
        [*range(1, 17), 32, 64, 128], description="sentences per forward pass; a line needs four sizes or more"
    )
    length_policies: list_of(LengthPolicy) = Field(["fixed-32"], description="how sentences are padded within a batch")
    passes: list_of(Literal["timing", "memory", "energy"]) = Field(["timing"], description="what is measured")
    profiling_repetitions: Count = Field(
        5, description="fresh processes per cell that are profiled; an interval needs five"
    )
    timed_forwards: TimedForwards = 60
    profiler_active: ActiveSteps = 6
    utilisation_s: UtilisationSeconds = 0.0


class QwenParams(SweepParams):
    """The qwen study: a decoder of half a billion parameters that classifies reviews, or commands, in 23 classes.

    Its sections: where the time goes, at the same batch sizes, and the whole data set, at the best of them.
    """

    SECTIONS = ("profiling", "evaluation")
    BASELINE = True
    study: Literal["qwen"] = "qwen"
    model_family: Literal["distilbert", "qwen2"] = "qwen2"
    model_size: Literal["base", "0.5b", "tiny"] = "0.5b"
    model_name: str = "codefactory4791/intent-classification-qwen"
    model_revision: str = "main"
    embedded_task: Literal["movies", "intents"] = "intents"
    dataset_name: str = "codefactory4791/amazon_test"
    dataset_config: str = "default"
    dataset_split: str = "only"
    batch_sizes: list_of(Count) = Field([1, 4, 8, 16, 32, 64])
    length_policies: list_of(LengthPolicy) = Field(["fixed-128", "longest"])
    samples_per_cycle: Count = 512
    profiling_variants: list_of(Literal["eager", "sdpa", "autocast"]) = Field(
        ["sdpa"], description="of what is profiled"
    )
    profiling_length_policies: list_of(LengthPolicy) = Field(["fixed-128"], description="of what is profiled")
    profiling_repetitions: Count = Field(3, description="fresh processes per cell that are profiled")
    timed_forwards: TimedForwards = 30
    profiler_active: ActiveSteps = 3
    utilisation_s: UtilisationSeconds = 5.0
    evaluation_variants: list_of(Literal["eager", "sdpa", "autocast"]) = Field(
        ["sdpa"], description="of what is evaluated"
    )
    evaluation_length_policies: list_of(LengthPolicy) = Field(["fixed-128"], description="of what is evaluated")
    evaluation_repetitions: Literal[1] = Field(1, description="processes per cell: each goes over all rows")
    evaluation_repetition_timeout_s: Timeout = 7 * 24 * 3600.0
    evaluation_batch_size: Count | None = Field(
        None, description="at which the whole data set is classified; empty: the best one of the sweep"
    )
    evaluation_model_source: Source | None = Field(
        None, description="of the model that is evaluated; empty: as of the one that is timed"
    )
    chunk_rows: Count = Field(512, description="rows that an evaluation commits together")
    damaged_rows: Literal["error", "skip"] = Field("error", description="of an evaluation: end it, or leave them out")
