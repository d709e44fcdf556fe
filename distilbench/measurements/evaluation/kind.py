"""The evaluation as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.harness.steps import in_rounds
from distilbench.measurements.evaluation import records
from distilbench.measurements.evaluation.params import EvaluationParams
from distilbench.measurements.evaluation.summary import join, recompute
from distilbench.measurements.sweep.measure import design
from distilbench.runs.measurement import Measurement

MEASUREMENT = Measurement(
    name="evaluation",
    params=EvaluationParams,
    raw="evaluation.jsonl",
    record=records.EvaluationRecord,
    cells=design.grid,
    plan=in_rounds(design.grid, records.PASS),
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.evaluation.measure.run",
    show="distilbench.measurements.evaluation.show.entry",
    comparable={"batch_ms": records.PASS},
    folders=(records.FOLDER,),
    inexact=recompute.INEXACT,
)
