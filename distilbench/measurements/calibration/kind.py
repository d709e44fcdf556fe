"""The calibration as a kind of measurement: of the instrument, and of no study."""

from __future__ import annotations

import re

from distilbench.measurements.calibration import summary
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import StudyParams

MEASUREMENT = Measurement(
    name="calibration",
    params=StudyParams,
    raw="checks.jsonl",
    record=summary.Reading,
    cells=lambda _: [],
    plan=lambda _: [],
    summarise=summary.summarise,
    recompute=summary.recompute,
    measure="distilbench.measurements.calibration.measure",
    show="distilbench.measurements.calibration.show",
    comparable={},
    # stats.ratio_interval, and forks against fresh processes; shares there differ by far more
    inexact=re.compile(r"checks\[\d+\]: (interval\[\d\]|ratio|low|high|forked|fresh)$"),
    slot="depth",
)
