"""The four plots: latency, throughput, memory and energy against batch size; interactive offline, static in print.

Their captions are made from what they show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from distilbench import paths
from distilbench.measurements.sweep.show import lengths
from distilbench.report import spread as report_spread
from distilbench.report.charts import PALETTE, NotMeasured, Shown, _config, _legend, _rounded, hollow, marks, png, svg

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True)
class Metric:
    """What to plot: the column, the axis title with its unit, whether the axis is logarithmic, what a caption calls it.

    `figure` ends the label of its figure, as in fig-latency. `timed`: by the processes whose state a cell has.
    """

    column: str
    title: str
    log: bool
    figure: str
    called: str

    @property
    def timed(self) -> bool:
        return self.figure in ("latency", "throughput")


METRICS = (
    Metric(
        "latency_ms", "Latency of one batch (ms)", True, "latency",
        "Latency of one batch against batch size, both axes logarithmic",
    ),
    Metric(
        "throughput_samples_per_s", "Throughput (samples/s)", False, "throughput", "Throughput against batch size"
    ),
    Metric(
        "peak_memory_MiB", "Peak memory (MiB)", False, "memory",
        "Peak memory of a process against batch size; on a GPU, of the memory that torch allocated there",
    ),
    Metric(
        "energy_per_sample_J", "Energy per sample (J)", True, "energy",
        "Gross energy per sentence against batch size, both axes logarithmic",
    ),
)  # fmt: skip


def chart(table: pd.DataFrame, metric: Metric) -> alt.Chart | alt.FacetChart | alt.LayerChart | None:
    """One metric against batch size; None when no cell has it.

    One colour per machine, one dash and shape per length policy, one panel per variant. The bar through a point is what
    `spread` says; the point of an unstable cell is hollow.

    Args:
        table: as `load.table` gives it.
        metric: one of METRICS.
    """
    import altair as alt

    rows = _rows(table, metric)
    if rows.empty:
        return None
    sizes = sorted(int(size) for size in rows["batch_size"].unique())
    x = alt.X(
        "batch_size:Q",
        title="Batch size (sentences per forward pass)",
        scale=alt.Scale(type="log", base=2, nice=False, padding=12),
        axis=alt.Axis(values=sizes, format="d", grid=False),
    )
    span = [_rounded(rows["low"].min() / 1.3), _rounded(rows["high"].max() * 1.3)]
    y_scale = alt.Scale(type="log", domain=span, nice=False) if metric.log else alt.Scale(zero=True, nice=True)
    title = title_of(table, metric)
    y = alt.Y("value:Q", title=title, scale=y_scale, axis=alt.Axis(format=",.4~r"))
    colour = alt.Color("machine:N", title=None, scale=alt.Scale(range=PALETTE), legend=_legend(rows, "machine"))
    dash = alt.StrokeDash("length_policy:N", legend=None)  # the shape's legend names the policies
    shape = alt.Shape("length_policy:N", title=None, legend=_legend(rows, "length_policy"))
    base = alt.Chart(rows).encode(x=x, color=colour)
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash)
    edge = alt.Stroke("machine:N", scale=alt.Scale(range=PALETTE), legend=None)
    point = base.mark_point(filled=True, size=60, opacity=1, strokeWidth=1.5).encode(
        y=y, shape=shape, stroke=edge, fillOpacity=hollow(), tooltip=_tooltip(metric)
    )
    spread = base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=title, scale=y_scale), y2="high:Q")
    layers = alt.layer(spread, line, point).properties(width=460, height=280)
    if rows["variant"].nunique() > 1:
        layers = layers.facet(column=alt.Column("variant:N", title=None))
    return layers.configure(**_config())


def title_of(table: pd.DataFrame, metric: Metric) -> str:
    """The axis title; energy says what told it, for a given power times a duration must not pass as measured."""
    if not metric.column.startswith("energy") or "energy_source" not in table:
        return metric.title
    return f"{metric.title}, {' and '.join(sorted(table['energy_source'].dropna().unique()))}"


def _rows(table: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The plotted columns only: small specs, and byte-identical ones for equal data."""
    keys = ["machine", "variant", "length_policy", "batch_size", "state"]
    if metric.column not in table:
        return pd.DataFrame(columns=[*keys, "value", "low", "high"])
    wanted = table[table[metric.column].notna()]
    rows = wanted[keys].assign(value=wanted[metric.column].map(_rounded))
    if not metric.timed:  # whether a warm-up had settled says nothing of memory, nor of processes of another pass
        rows["state"] = rows["state"].mask(rows["state"] == "unstable", "ok")
    beside = [report_spread.ends(row, metric.column) for row in wanted.to_dict("records")]
    for name, end in (("low", 0), ("high", 1)):
        rows[name] = [_rounded(ends[end]) for ends in beside]
    return rows.sort_values(keys, ignore_index=True)


def metric_of(figure: str) -> Metric:
    """The metric whose figure has that label, with or without a page's slug in it."""
    return next(metric for metric in METRICS if figure.endswith(f"-{metric.figure}"))


def caption(table: pd.DataFrame, metric: Metric) -> str | None:
    """What a plot shows: points, bars, marks, what was cut, and who is missing; None where there is no plot."""
    shown = table[table[metric.column].notna()] if metric.column in table else table[:0]
    if shown.empty:
        return None
    what = "means over the windows" if metric.column.startswith("energy") else "medians over the processes"
    said = f"{metric.called}. Points are {what}, bars reach {report_spread.in_words(shown, metric.column)}. "
    return (said + marks(_rows(table, metric)) + lengths.warning(shown) + _absent(table, shown, metric)).rstrip()


def _absent(table: pd.DataFrame, shown: pd.DataFrame, metric: Metric) -> str:
    """The machines of which nothing is shown, with the reason."""
    missing = table[~table["machine"].isin(shown["machine"].unique())]
    said = [f"{name}: {'; '.join(_reasons(rows, metric))}" for name, rows in missing.groupby("machine", sort=True)]
    return f"Not shown: {', '.join(said)}. " if said else ""


def _reasons(table: pd.DataFrame, metric: Metric) -> list[str]:
    reasons = table.get(f"{metric.column}_reason", pd.Series(dtype=str)).dropna().unique().tolist()
    return reasons or ["no finished repetition"]


def _tooltip(metric: Metric) -> list[alt.Tooltip]:
    import altair as alt

    number = {"format": ",.4~g"}
    return [
        alt.Tooltip("machine:N"),
        alt.Tooltip("variant:N"),
        alt.Tooltip("length_policy:N", title="length"),
        alt.Tooltip("batch_size:Q", title="batch size"),
        alt.Tooltip("value:Q", title=metric.title, **number),
        alt.Tooltip("low:Q", title="from", **number),
        alt.Tooltip("high:Q", title="to", **number),
        alt.Tooltip("state:N"),
    ]


def plot(table: pd.DataFrame, column: str) -> Shown | NotMeasured:
    """The plot of one metric, or why there is none."""
    metric = next(m for m in METRICS if m.column == column)
    drawn = chart(table, metric)
    if drawn is None:
        return NotMeasured(metric.title, _reasons(table, metric))
    rows = _rows(table, metric)
    note = (marks(rows) + lengths.warning(table[table[column].notna()])).rstrip()
    return Shown(drawn, _alt_text(rows, title_of(table, metric)), note)


def _alt_text(rows: pd.DataFrame, title: str) -> str:
    """The plot in words: each curve's two ends."""
    curves = []
    for (machine, variant, policy), curve in rows.groupby(["machine", "variant", "length_policy"], sort=True):
        first, last = curve.iloc[0], curve.iloc[-1]
        ends = " to ".join(f"{end['value']:.3g} at batch size {end['batch_size']}" for end in (first, last))
        unstable = [str(size) for size in curve.loc[curve["state"] == "unstable", "batch_size"]]
        ends += f" (unstable at {', '.join(unstable)})" if unstable else ""
        curves.append(f"{machine}, {variant}, {policy}: {ends}")
    return f"{title} against batch size. {'; '.join(curves)}."


def save(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Writes each plot that there is as SVG and PNG into `folder`."""
    written = []
    for metric in METRICS:
        drawn = chart(table, metric)
        if drawn is None:
            continue
        for ending, content in (("svg", svg(drawn)), ("png", png(drawn, scale=2))):
            paths.write_atomic(folder / f"{metric.column}.{ending}", content)
            written.append(folder / f"{metric.column}.{ending}")
    return written
