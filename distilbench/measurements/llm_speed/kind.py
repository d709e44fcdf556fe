"""Decoders as a kind of measurement; apart from `__init__`, which every worker passes through."""

from __future__ import annotations

from distilbench.harness.steps import in_rounds
from distilbench.measurements.llm_speed import records
from distilbench.measurements.llm_speed.params import PaluParams
from distilbench.measurements.llm_speed.summary import join, recompute
from distilbench.runs.measurement import Measurement

MEASUREMENT = Measurement(
    name="llm_speed",
    params=PaluParams,
    raw="llm_speed.jsonl",
    record=records.LlmRecord,
    cells=records.cells,
    plan=in_rounds(records.cells, records.TIMING),
    summarise=join.summarise,
    recompute=recompute.recompute,
    measure="distilbench.measurements.llm_speed.measure.run",
    show="distilbench.measurements.llm_speed.show.entry",
    comparable={"latency_ms": records.TIMING},
    folders=(records.FOLDER,),
    inexact=recompute.INEXACT,
)
