"""The parameters of task scores: which tasks, with how many examples before each question, and how many questions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distilbench.lowrank.params import VARIANTS, DecoderParams, Variant
from distilbench.runs.parameters import Count, list_of

Task = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Shots = Annotated[int, Field(ge=0, le=25, strict=True)]
TASKS = (
    "multiple-choice tasks of lm-evaluation-harness, from the hub (piqa, hellaswag, …); without it mmlu_dev_mini and "
    "mmlu_dev_letter_mini, which an installed package brings"
)


class TaskScoresParams(DecoderParams):
    """Which of a task's questions a decoder answers, whole and compressed."""

    study: str = "task_scores"
    variants: list_of(Variant) = Field(["baseline", "palu"], description=VARIANTS)
    ratio: float = Field(0.7, gt=0, le=1, description="fraction of keys and values that palu keeps")
    rank_search: Literal["fisher", "uniform"] = Field("fisher", description="how palu's ranks are found")
    ratio_dir: str = Field("", description="folder to search for rank files; empty: ranks are found here")
    tasks: list_of(Task) = Field(["piqa", "hellaswag"], description=TASKS)
    shots: list_of(Shots) = Field([0, 1], description="answered examples before each question")
    limit: Count = Field(200, description="questions of a task: its first ones")
    batch_size: Count = Field(8, description="choices that are scored together")
    checked: Count = Field(8, description="of these questions, those that a scorer of our own answers too")
