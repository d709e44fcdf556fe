"""The training as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.measurements.training import records
from distilbench.measurements.training.measure import design
from distilbench.measurements.training.params import AgnewsParams
from distilbench.measurements.training.summary import join, recompute
from distilbench.runs.measurement import Measurement

MEASUREMENT = Measurement(
    name="training",
    params=AgnewsParams,
    raw="training.jsonl",
    record=records.TrainingRecord,
    cells=design.cells_of,
    plan=design.plan,
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.training.measure.run",
    show="distilbench.measurements.training.show.entry",
    comparable={"step_ms": records.STEPS},
    folders=(records.FOLDER,),
    inexact=recompute.INEXACT,
)
