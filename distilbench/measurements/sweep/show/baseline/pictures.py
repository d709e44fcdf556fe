"""The two pictures of a baseline: six panels over batch sizes, and a normalised heatmap with its numbers written in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from distilbench.report.charts import PALETTE, _config, hollow

if TYPE_CHECKING:
    import altair as alt

#: Field of a row of baseline_metrics.json, title, whether the axis is logarithmic.
PANELS = (
    ("latency_per_batch_ms", "Latency of a batch (ms)", True),
    ("latency_per_sample_ms", "Latency per sample (ms)", False),
    ("throughput_samples_per_s", "Throughput (samples/s)", False),
    ("peak_memory_MiB", "Peak memory (MiB)", False),
    ("efficiency", "Efficiency against linear scaling", False),
    ("roofline_share", "Share of what the machine allows", False),
)
WIDTH, HEIGHT = 260, 190


def rows(metrics: dict[str, Any]) -> pd.DataFrame:
    """The batch sizes of a baseline with their efficiency: throughput over linear scaling from the curve's smallest.

    At `longest` work per sample changes with the batch size, so there is no efficiency.
    """
    found = pd.DataFrame(metrics["batch_sizes"])
    found["curve"] = found["variant"] + ", " + found["length_policy"]
    first = found.sort_values("batch_size").groupby("curve")
    linear = found["batch_size"] * found["curve"].map(
        first["throughput_samples_per_s"].first() / first["batch_size"].first()
    )
    found["efficiency"] = (found["throughput_samples_per_s"] / linear).where(found["length_policy"] != "longest")
    return found


def comparison(metrics: dict[str, Any]) -> alt.VConcatChart:
    """Six panels over batch sizes; a bar reaches from the low to the high end of a number."""
    import altair as alt

    table = rows(metrics)
    panels = [_panel(table, *panel) for panel in PANELS]
    wanted = alt.vconcat(alt.hconcat(*panels[:3]), alt.hconcat(*panels[3:]))
    return wanted.properties(title=alt.Title(_title(metrics), offset=14, anchor="start")).configure(**_config())


def _panel(table: pd.DataFrame, name: str, title: str, log: bool) -> alt.LayerChart:
    import altair as alt

    known = table[table[name].notna()] if name in table else table[:0]
    shown = known[["batch_size", "curve", "state"]].assign(value=known[name])
    for end in ("low", "high"):
        shown[end] = known[f"{name}_{end}"].fillna(known[name]) if f"{name}_{end}" in known else known[name]
    sizes = sorted(int(size) for size in table["batch_size"].unique())
    if shown.empty:
        words = alt.Chart(pd.DataFrame({"text": ["not measured"]})).mark_text(fontSize=14, color="currentColor")
        return alt.layer(words.encode(text="text:N")).properties(width=WIDTH, height=HEIGHT, title=title)
    x = alt.X(
        "batch_size:Q",
        title="Batch size",
        scale=alt.Scale(type="log", base=2, nice=False, padding=12),
        axis=alt.Axis(values=sizes, format="d", grid=False),
    )
    span = [shown["low"].min() / 1.25, shown["high"].max() * 1.25]  # a whole decade would squeeze the curve
    scale = alt.Scale(type="log", domain=span, nice=False) if log else alt.Scale(zero=True, nice=True)
    y = alt.Y("value:Q", title=None, scale=scale)
    legend = alt.Legend(orient="bottom", labelLimit=300) if table["curve"].nunique() > 1 else None
    colour = alt.Color("curve:N", title=None, scale=alt.Scale(range=PALETTE), legend=legend)
    base = alt.Chart(shown).encode(x=x, color=colour)
    bars = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=None, scale=scale), y2="high:Q")
    edge = alt.Stroke("curve:N", scale=alt.Scale(range=PALETTE), legend=None)  # a hollow point is seen by it
    points = base.mark_point(filled=True, size=45, opacity=1, strokeWidth=1.5).encode(
        y=y, stroke=edge, fillOpacity=hollow()
    )
    layers = alt.layer(bars, base.mark_line(strokeWidth=2).encode(y=y), points)
    return layers.properties(width=WIDTH, height=HEIGHT, title=title)


def heatmap(metrics: dict[str, Any]) -> alt.LayerChart:
    """Each metric over batch sizes, its colour normalised from its lowest (0) to its highest (1) value.

    Of the curve with the best throughput, or else the first one.
    """
    import altair as alt

    table = rows(metrics)
    best = table[table["batch_size"] == metrics["best_batch_size"]]
    curve = best.loc[best["throughput_samples_per_s"].idxmax(), "curve"]
    mine = table[table["curve"] == curve]
    cells = pd.concat([_normalised(mine, name, title) for name, title, _ in PANELS], ignore_index=True)
    cells["batch_size"] = cells["batch_size"].astype(str)
    base = alt.Chart(cells).encode(
        x=alt.X(
            "batch_size:O", title="Batch size", axis=alt.Axis(labelAngle=0), sort=list(cells["batch_size"].unique())
        ),
        y=alt.Y("metric:N", title=None, sort=[title for _, title, _ in PANELS], axis=alt.Axis(labelLimit=400)),
    )
    shade = alt.Color(
        "normalised:Q",
        title="from the lowest (0) to the highest (1)",
        scale=alt.Scale(scheme="blues", domain=[0, 1]),
        legend=alt.Legend(orient="bottom", gradientLength=300, titleLimit=300),
    )
    ink = alt.when("datum.normalised > 0.55").then(alt.value("white")).otherwise(alt.value("black"))
    numbers = base.mark_text(fontSize=12).encode(text="number:N", color=ink)
    size = {"width": 76 * mine["batch_size"].nunique(), "height": 40 * cells["metric"].nunique()}
    title = alt.Title([*_title(metrics), curve], anchor="start")
    return (
        alt.layer(base.mark_rect().encode(color=shade), numbers).properties(title=title, **size).configure(**_config())
    )


def _normalised(table: pd.DataFrame, name: str, title: str) -> pd.DataFrame:
    """One row of the heatmap; a metric that is the same everywhere is in the middle."""
    known = table[table[name].notna()].sort_values("batch_size")
    values, span = known[name].astype(float), known[name].max() - known[name].min()
    return pd.DataFrame(
        {
            "batch_size": known["batch_size"],
            "metric": title,
            "normalised": (values - values.min()) / span if span else values * 0 + 0.5,
            "number": [f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in values],
        }
    )


def _title(metrics: dict[str, Any]) -> list[str]:
    """In two lines: in one it would be wider than a picture of few batch sizes."""
    return [metrics["model"]["name"], f"{metrics['machine']}, profile {metrics['profile'].partition(':')[0]}"]
