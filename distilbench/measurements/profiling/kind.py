"""The profile as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.harness.steps import in_rounds
from distilbench.measurements.profiling import records
from distilbench.measurements.profiling.params import ProfileParams
from distilbench.measurements.profiling.summary import join, recompute
from distilbench.measurements.sweep.measure import design
from distilbench.runs.measurement import Measurement

MEASUREMENT = Measurement(
    name="profiling",
    params=ProfileParams,
    raw="profile.jsonl",
    record=records.ProfileRecord,
    cells=design.grid,
    plan=in_rounds(design.grid, records.PASS),
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.profiling.measure.run",
    show="distilbench.measurements.profiling.show.entry",
    comparable={"forward_ms": records.PASS},
    folders=(records.FOLDER,),
    bulky=records.bulky,
)
