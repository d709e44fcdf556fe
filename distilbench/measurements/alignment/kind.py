"""Dimension alignment as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.harness.steps import in_rounds
from distilbench.measurements.alignment import records
from distilbench.measurements.alignment.params import AlignmentParams
from distilbench.measurements.alignment.summary import join, recompute
from distilbench.runs.measurement import Measurement

MEASUREMENT = Measurement(
    name="alignment",
    params=AlignmentParams,
    raw="alignment.jsonl",
    record=records.AlignmentRecord,
    cells=records.cells,
    plan=in_rounds(records.cells, records.TIMING),
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.alignment.measure.run",
    show="distilbench.measurements.alignment.show.entry",
    comparable={"mean_ms": records.TIMING},
    folders=(records.FOLDER,),
    inexact=recompute.INEXACT,
)
