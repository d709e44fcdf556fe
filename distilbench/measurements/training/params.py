"""The parameters of the agnews study: a training, and the configurations that are compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distilbench.runs.parameters import Count, Heap, Timeout, list_of
from distilbench.training.params import TrainingParams


class AgnewsParams(TrainingParams):
    """DistilBERT trained in one process and in many; `batch_size` is that of one process."""

    study: str = "agnews"
    processes: list_of(Count) = Field([1, 2], description="numbers of processes to compare; the others against 1")
    scalings: list_of(Literal["strong", "weak"]) = Field(
        ["strong", "weak"],
        description="what many processes share: strong: the rows of a step; weak: nothing, a step has more rows",
    )
    repetitions: Count = Field(5, description="processes, or groups of processes, per configuration that time steps")
    warmup_steps: Count = Field(5, description="first steps of a repetition, which are not timed")
    timed_steps: Count = Field(50, description="steps that are timed after them")
    trainings: Literal["all", "one", "none"] = Field(
        "all",
        description="trained to the end: every configuration with the rows per step of one process; only that; none",
    )
    loop_blocks: int = Field(
        6, ge=0, description="blocks of steps, in turn with those of a bare loop over the same tensors; 0: not compared"
    )
    block_steps: Count = Field(5, description="steps of a block")
    heap: Heap = "system"
    repetition_timeout_s: Timeout = 24 * 3600.0

    @model_validator(mode="after")
    def _check_configurations(self) -> AgnewsParams:
        if 1 not in self.processes:
            raise ValueError("processes must hold 1, against which the others are compared")
        if "strong" in self.scalings and (odd := [n for n in self.processes if self.batch_size % n]):
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared out evenly over {odd[0]} processes (strong scaling): "
                "choose a multiple of each number of processes"
            )
        return self
