"""Task scores as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.measurements.task_scores import records
from distilbench.measurements.task_scores.params import TaskScoresParams
from distilbench.measurements.task_scores.summary import join, recompute
from distilbench.runs.measurement import Measurement

MEASUREMENT = Measurement(
    name="task_scores",
    params=TaskScoresParams,
    raw="task_scores.jsonl",
    record=records.TaskRecord,
    cells=records.cells,
    plan=records.plan,
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.task_scores.measure.run",
    show="distilbench.measurements.task_scores.show.entry",
    comparable={"seconds_per_document_s": records.SCORING},
    folders=(records.FOLDER,),
    inexact=recompute.INEXACT,
)
