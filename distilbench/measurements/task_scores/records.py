"""A line of task_scores.jsonl, and the parquet file beside it."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from distilbench.lowrank.params import Variant
from distilbench.measurements.task_scores.params import TaskScoresParams
from distilbench.runs.measurement import Step
from distilbench.runs.parameters import Resolved
from distilbench.runs.records import Cell, RecordWithFiles
from distilbench.runs.states import MEASURED

FOLDER = "documents"
SCORING = "scoring"
CHOICE, GENERATE = "multiple_choice", "generate_until"
DOCUMENTS = pa.schema(
    [
        ("document", pa.int32()),
        ("document_sha256", pa.string()),  # of the question with what stands before it, its choices and its answer
        ("target", pa.string()),  # number of the right choice, or the text that must be written
        ("logprobs", pa.list_(pa.float64())),  # of the choices, in nats; empty where a text is written
        ("characters", pa.list_(pa.int32())),  # of the choices
        ("said", pa.string()),  # what was written; null where choices are scored
        ("own_logprobs", pa.list_(pa.float64())),  # by the scorer of our own; null where it was not asked
        ("own_said", pa.string()),  # written without a cache; null where it was not asked
    ]
)


class TaskCell(Cell):
    """A variant at a task, with so many examples."""

    variant: Variant
    task: str
    shots: int = Field(ge=0, description="answered examples before each question")


class TaskRecord(TaskCell, RecordWithFiles):
    """One line of task_scores.jsonl: one process in which one variant answered a task's questions."""

    pass_: Literal["scoring"] = Field(alias="pass")
    device: str | None = None
    dtype: str | None = None
    model_source: str | None = None
    harness: str | None = Field(None, description="lm-evaluation-harness with its version")
    output_type: Literal["multiple_choice", "generate_until"] | None = None
    documents_sha256: str | None = Field(None, description="two scores are compared on the same questions only")
    documents: int | None = Field(None, description="questions")
    accuracy: float | None = Field(None, description="share of them whose most probable choice is right, or the text")
    accuracy_norm: float | None = Field(None, description="the same per character of a choice; null for texts")
    chance: float | None = Field(None, description="accuracy of guessing; null for texts")
    margin_nat: float | None = Field(
        None, description="mean of the right choice's log-probability less that of the best wrong one; null for texts"
    )
    checked: int | None = Field(None, description="questions that the scorer of our own answered too")
    own_difference_nat: float | None = Field(
        None, description="largest difference of a log-probability from that of our own scorer; null for texts"
    )
    own_disagreed: int | None = Field(None, description="texts that differ from those written without a cache")
    seconds_per_document_s: float | None = Field(None, description="of the whole evaluation, examples and all")
    effective_ratio: float | None = Field(None, description="fraction that the ranks keep; baseline: 1")
    peak_rss_MiB: float | None = None

    @model_validator(mode="after")
    def _measured_has_numbers(self) -> TaskRecord:
        if self.status in MEASURED and not (self.documents and self.accuracy is not None and self.files_sha256):
            raise ValueError("a measured record has its questions, its accuracy and its file")
        return self

    def in_words(self) -> str:
        """What it says, in a line of progress."""
        if self.status not in MEASURED:
            return f"{self.cell}: {self.status.upper()} {self.error}"
        return f"{self.cell}: {self.accuracy:.3f} of {self.documents} right"


def cells(params: TaskScoresParams) -> list[TaskCell]:
    """Task by task, the variants side by side."""
    return [
        TaskCell(cell=cell_name(variant, task, shots), variant=variant, task=task, shots=shots)
        for task in params.tasks
        for shots in params.shots
        for variant in params.variants
    ]


def plan(resolved: Resolved) -> list[Step]:
    """Each cell once: a score does not vary."""
    return [(cell, SCORING, 0) for cell in cells(resolved.params)]


def cell_name(variant: str, task: str, shots: int) -> str:
    """What a cell is called."""
    return f"{variant}-{task}-{shots}shot"


def file_name(cell: str) -> str:
    """The file of a record, below the run folder."""
    return f"{FOLDER}/{cell}.parquet"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line of task_scores.jsonl."""
    return TaskRecord.model_json_schema(by_alias=True)
