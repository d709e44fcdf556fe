"""The evaluation as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.harness.steps import in_rounds
from distilbench.measurements.evaluation import records
from distilbench.measurements.evaluation.params import EvaluationParams
from distilbench.measurements.evaluation.summary import join, recompute
from distilbench.measurements.sweep.measure import design
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import Resolved


def _follow(resolved: Resolved, run: Run) -> Resolved:
    """In a section, where no batch size is given: the one with which its run had the best throughput."""
    best = run.summary.get("best_throughput") if run.is_measured else None
    if best is None or resolved.origins["batch_size"] != "default":
        return resolved
    origins = resolved.origins | {"batch_size": f"the best one of run {run.run_id}"}
    return Resolved(resolved.params.model_copy(update={"batch_size": best["batch_size"]}), origins)


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
    follow=_follow,
)
