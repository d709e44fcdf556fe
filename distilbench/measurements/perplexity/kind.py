"""Perplexities as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.measurements.perplexity import records
from distilbench.measurements.perplexity.params import PerplexityParams
from distilbench.measurements.perplexity.summary import join, recompute
from distilbench.runs.measurement import Measurement

MEASUREMENT = Measurement(
    name="perplexity",
    params=PerplexityParams,
    raw="perplexity.jsonl",
    record=records.PerplexityRecord,
    cells=records.cells,
    plan=records.plan,
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.perplexity.measure.run",
    show="distilbench.measurements.perplexity.show.entry",
    comparable={"nll_nat_per_token": records.SCORING},
    folders=(records.FOLDER,),
    inexact=recompute.INEXACT,
)
