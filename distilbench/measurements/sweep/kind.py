"""The sweep as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from typing import Any

from distilbench.measurements.sweep.measure import design
from distilbench.measurements.sweep.params import SweepParams
from distilbench.measurements.sweep.records import Repetition
from distilbench.measurements.sweep.summary import join, recompute
from distilbench.runs.measurement import Measurement


def _refusals(params: dict[str, Any]) -> list[str]:
    slowed = [name for name in params.get("variants", []) if name.startswith("slowed-")]
    forked = "its processes were forked from one (fresh_processes: false): their intervals are those of one layout"
    return [
        *([f"{', '.join(slowed)}: slower on purpose, for calibration"] if slowed else []),
        *([] if params.get("fresh_processes", True) else [forked]),
    ]


MEASUREMENT = Measurement(
    name="sweep",
    params=SweepParams,
    raw="raw.jsonl",
    record=Repetition,
    cells=design.cells_of,
    plan=design.plan,
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.sweep.measure.run",
    show="distilbench.measurements.sweep.show.entry",
    comparable={"latency_ms": "timing"},
    folders=("iterations",),
    inexact=recompute.INEXACT,
    for_jobs=design.for_jobs,
    refusals=_refusals,
)
