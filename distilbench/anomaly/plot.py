"""The picture of the report: latency per sample against the line, and how far each size is from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from distilbench.anomaly.analysis import DEVIATES, SEEMS, Analysis, Curve, SizeFound
from distilbench.report.charts import PALETTE, Shown, _config, _rounded
from distilbench.stats import THRESHOLD

if TYPE_CHECKING:
    import altair as alt

DEVIATING, SEEMING, OTHER = "deviates, all controlled for", "only seems to", "no deviation shown"
KINDS = {DEVIATING: PALETTE[1], SEEMING: PALETTE[4], OTHER: PALETTE[0]}


def rows(analysis: Analysis) -> pd.DataFrame:
    """What is drawn: one row per size; deviations in percent of the predicted latency."""
    return pd.DataFrame(_row(curve, size) for curve in analysis.curves for size in curve.sizes)


def _row(curve: Curve, size: SizeFound) -> dict[str, object]:
    ratio = size.measured_over_predicted
    kind = DEVIATING if size.found in DEVIATES else SEEMING if size.found in SEEMS else OTHER
    ends = {f"{name}_{end}": None for name in ("alone", "together") for end in ("low", "high")}
    for name in ("alone", "together"):
        if pair := getattr(ratio, name):
            ends |= {f"{name}_low": _percent(pair[0]), f"{name}_high": _percent(pair[1])}
    return {
        "curve": curve.name,
        "batch_size": size.batch_size,
        "measured_ms": _rounded(size.latency_per_sample_ms),
        "predicted_ms": _rounded(size.predicted_ms / size.batch_size),
        "deviation": _percent(ratio.value),
        "kind": kind,
        **ends,
    }


def _percent(ratio: float) -> float:
    return _rounded(100 * (ratio - 1))


def chart(analysis: Analysis) -> alt.VConcatChart | None:
    """Both panels, one above the other, a column per curve; None where no size has a line to be compared with."""
    import altair as alt  # here: it takes a second or more

    if (table := rows(analysis)).empty:
        return None
    sizes = sorted(set(table["batch_size"]))
    shown = [size for size in sizes if size & (size - 1) == 0] or sizes
    x = alt.X(
        "batch_size:Q",
        title="Batch size",
        scale=alt.Scale(type="log", base=2, domain=[sizes[0], sizes[-1]]),
        axis=alt.Axis(values=shown, format="d", grid=False),
    )
    columns = table["curve"].nunique()
    panels = [_per_sample(table, x), _deviation(table, x)]
    if columns > 1:
        panels = [panel.facet(column=alt.Column("curve:N", title=None)) for panel in panels]
    return alt.vconcat(*panels).configure(**_config())


def _per_sample(table: pd.DataFrame, x: alt.X) -> alt.LayerChart:
    import altair as alt

    title = "Latency per sample (ms)"
    base = alt.Chart(table).encode(x=x)
    scale = alt.Scale(type="log", nice=False, padding=12)
    line = base.mark_line(strokeDash=[4, 3], color=PALETTE[3]).encode(
        y=alt.Y("predicted_ms:Q", title=title, scale=scale)
    )
    tooltip = ["batch_size:Q", "measured_ms:Q", "predicted_ms:Q", "kind:N"]
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=alt.Y("measured_ms:Q", title=title, scale=scale), color=_colour(), tooltip=tooltip
    )
    return alt.layer(line, points).properties(width=460, height=200)


def _deviation(table: pd.DataFrame, x: alt.X) -> alt.LayerChart:
    import altair as alt

    title = "Latency above the prediction (%)"
    base = alt.Chart().encode(x=x)  # a layer with data of its own would show all curves in each column
    limits = (-100 * (1 - 1 / (1 + THRESHOLD)), 0.0, 100 * THRESHOLD)
    rules = [
        alt.Chart().mark_rule(strokeDash=[2, 3], color="grey").encode(y=alt.Y(datum=limit, type="quantitative"))
        for limit in limits
    ]
    wide = base.mark_rule(strokeWidth=1).encode(
        y=alt.Y("together_low:Q", title=title), y2="together_high:Q", color=_colour()
    )
    narrow = base.mark_rule(strokeWidth=4).encode(
        y=alt.Y("alone_low:Q", title=title), y2="alone_high:Q", color=_colour()
    )
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=alt.Y("deviation:Q", title=title), color=_colour(), tooltip=["batch_size:Q", "deviation:Q", "kind:N"]
    )
    return alt.layer(*rules, wide, narrow, points, data=table).properties(width=460, height=200)


def _colour() -> alt.Color:
    import altair as alt

    scale = alt.Scale(domain=list(KINDS), range=list(KINDS.values()))
    return alt.Color("kind:N", title=None, scale=scale, legend=alt.Legend(orient="top"))


def shown(analysis: Analysis) -> Shown | None:
    """The picture for a notebook, with what it shows in words."""
    if (drawn := chart(analysis)) is None:
        return None
    table = rows(analysis)
    off = table[table["kind"] == DEVIATING]
    said = ", ".join(f"batch size {row.batch_size} by {row.deviation:+.3g} %" for row in off.itertuples()) or "none"
    return Shown(
        drawn, f"Latency per sample, and how far each of {len(table)} sizes is from the line. Deviating: {said}."
    )
