"""The energy of a cell: from the windows of its process, and why there is none."""

from __future__ import annotations

import math
from typing import Any

from distilbench.measurements.sweep.records import Repetition
from distilbench.measurements.sweep.summary.doubts import COMPARABLE
from distilbench.stats import t_interval


def why_none(records: list[Repetition], params: dict[str, Any]) -> str:
    """Why there is no energy, as far as these repetitions say."""
    said = [r.error for r in records if r.pass_ == "energy" and r.error]
    if said:
        return said[-1]
    early = [r.energy_J_reason for r in records if r.pass_ == "timing" and r.warmup is None and r.energy_J_reason]
    if early:  # runs of an early version say it in the lines of the timing pass
        return early[0]
    if "energy" not in params["passes"]:
        return "the energy pass was not asked for"
    if any(r.energy for r in records):
        return "measured for the cell with the highest throughput only"
    return "no finished repetition of the energy pass"


def of_cell(records: list[Repetition]) -> dict[str, Any]:
    """Source, interval over the windows of its process, tick, idle power, and what other sources of the same say."""
    measured = [r for r in records if r.energy]
    if not measured:
        return {"energy_source": None}
    (record, *_), found = measured, measured[0].energy
    source = record.energy_source
    windows = [window for window in found.windows if source in window.joules]
    per_sample = [window.joules[source] / window.samples for window in windows]
    interval = t_interval(per_sample)
    others = {}
    for name in sorted({name for window in found.windows for name in window.joules} - {source}):
        both = [w.joules for w in windows if name in w.joules]
        if (name, source) in COMPARABLE and both:
            others[name] = math.fsum(w[name] for w in both) / math.fsum(w[source] for w in both) - 1
    return {
        "energy_source": source,
        "energy_per_sample_J_range": [min(per_sample), max(per_sample)],
        "energy_windows": len(per_sample),
        "energy_windows_W": [window.joules[source] / window.seconds for window in windows],
        "energy_windows_invalid": [w.invalid.get(source, "not measured") for w in found.windows if w not in windows],
        "energy_limit_W": found.limits_W.get(source),
        **({"energy_per_sample_J_interval_95": list(interval)} if interval else {}),
        "energy_idle_W": [found.idle_before_W.get(source), found.idle_after_W.get(source)],
        "energy_tick_ms": found.tick_ms,
        "energy_others": others,
        "energy_notes": found.notes,
        "energy_foreign_cores": record.foreign_cores,
        "energy_quota_periods": record.quota_periods,
        "energy_throttled_periods": record.throttled_periods,
    }
