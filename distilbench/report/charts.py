"""The four plots: latency, throughput, memory and energy against batch size; interactive offline, static in print.

Their captions are made from what they show.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from distilbench import paths, runs
from distilbench.report import lengths, load, spread

VEGA_LITE = "6.4"
#: Okabe & Ito's colours that keep 3:1 contrast to white and to near-black; one per machine.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]


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


def hollow() -> Any:
    """The opacity of a point's inside: none where its cell is unstable."""
    return alt.when("datum.state == 'unstable'").then(alt.value(0)).otherwise(alt.value(1))


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
    beside = [spread.ends(row, metric.column) for row in wanted.to_dict("records")]
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
    said = f"{metric.called}. Points are {what}, bars reach {spread.in_words(shown, metric.column)}. "
    return (said + marks(_rows(table, metric)) + lengths.warning(shown) + _absent(table, shown, metric)).rstrip()


def marks(rows: pd.DataFrame) -> str:
    """What a hollow point is; "" where there is none."""
    unstable = (rows["state"] == "unstable").any()
    return "Hollow points are unstable: a process had not settled when its warm-up was cut off. " if unstable else ""


def _absent(table: pd.DataFrame, shown: pd.DataFrame, metric: Metric) -> str:
    """The machines of which nothing is shown, with the reason."""
    missing = table[~table["machine"].isin(shown["machine"].unique())]
    said = [f"{name}: {'; '.join(_reasons(rows, metric))}" for name, rows in missing.groupby("machine", sort=True)]
    return f"Not shown: {', '.join(said)}. " if said else ""


def _reasons(table: pd.DataFrame, metric: Metric) -> list[str]:
    reasons = table.get(f"{metric.column}_reason", pd.Series(dtype=str)).dropna().unique().tolist()
    return reasons or ["no finished repetition"]


def _rounded(value: float) -> float:
    """Five significant digits: more than a plot shows, and fewer bytes."""
    return float(f"{value:.5g}")


def _legend(rows: pd.DataFrame, column: str) -> alt.Legend | None:
    """No legend for what does not vary: the caption says it."""
    columns = 1 if rows[column].str.len().max() > 20 else 4
    return alt.Legend(orient="top", labelLimit=400, columns=columns) if rows[column].nunique() > 1 else None


def _tooltip(metric: Metric) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("machine:N"),
        alt.Tooltip("variant:N"),
        alt.Tooltip("length_policy:N", title="length"),
        alt.Tooltip("batch_size:Q", title="batch size"),
        alt.Tooltip("value:Q", title=metric.title, format=",.4~g"),
        alt.Tooltip("low:Q", title="from", format=",.4~g"),
        alt.Tooltip("high:Q", title="to", format=",.4~g"),
        alt.Tooltip("state:N"),
    ]


def _config() -> dict[str, Any]:
    """Text in the colour of the page around it, so that one chart is readable in light and in dark."""
    ink, font = "currentColor", "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "labelColor": ink, "titleColor": ink, "domainColor": ink, "tickColor": ink, "gridColor": ink,
            "gridOpacity": 0.12, "labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal",
        },
        "legend": {
            "labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12,
            "symbolFillColor": ink, "symbolStrokeColor": ink,
        },
        "header": {"labelColor": ink, "labelFontSize": 13},
    }  # fmt: skip


# ------------------------------------------------------------------ showing and saving


def svg(drawn: Any) -> str:
    """The static picture, for pages: text takes the colour of the page around it."""
    return vl_convert.vegalite_to_svg(_spec(drawn), vl_version=VEGA_LITE)


def png(drawn: Any, scale: float = 1.5) -> bytes:
    """The static picture on white, for slides and previews."""
    return vl_convert.vegalite_to_png(_spec(drawn) | {"background": "white"}, vl_version=VEGA_LITE, scale=scale)


def _spec(drawn: Any) -> dict[str, Any]:
    """Vega-Lite as plain data; the file's time and random names are left out, so that equal charts are equal bytes."""
    return json.loads(drawn.to_json(indent=None))


class Shown:
    """A chart for notebooks and book: static picture inside, and the data with which a script makes it interactive.

    Attributes:
        drawn: the chart.
        alt_text: the chart in words.
        note: what a caption must say of its marks, and of what is cut; "" where there is nothing to say.
    """

    def __init__(self, drawn: Any, alt_text: str, note: str = "") -> None:
        self.drawn, self.alt_text, self.note = drawn, alt_text, note

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        spec = json.dumps(_spec(self.drawn), sort_keys=True)
        picture, alt_text = svg(self.drawn), html.escape(self.alt_text, quote=True)
        inert = spec.replace("</", "<\\/")
        return {
            "text/html": (
                f'<div class="db-chart" role="img" aria-label="{alt_text}">{picture}</div>'
                f'<script type="application/json" class="db-chart-data">{inert}</script>'
            ),
            "image/svg+xml": picture,
            "text/plain": f"<chart: {self.alt_text}>",
        }


class NotMeasured:
    """Stands where a chart would, and says why there is none: not asked for, not measurable, or failed."""

    def __init__(self, what: str, reasons: list[str]) -> None:
        self.text = f"{what}: not measured: {'; '.join(reasons)}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": f'<p class="db-not-measured">{html.escape(self.text)}</p>', "text/plain": self.text}


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


def folder_of(chosen: list[runs.Run]) -> Path:
    """Where plots of these runs go; overlays have a folder of their own there."""
    return load.home_of(chosen) / "plots" / load.beside(chosen).removeprefix("-")


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
