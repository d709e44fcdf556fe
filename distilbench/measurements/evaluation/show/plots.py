"""The confusion matrix as a picture: for two classes as for dozens, in light and in dark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from distilbench import paths
from distilbench.measurements.evaluation.show.tables import Row, classified, name_of, reason
from distilbench.report.charts import PALETTE, NotMeasured, Shown, _config, _rounded, png, svg

if TYPE_CHECKING:
    import altair as alt

FIGURE = "confusion"
LARGE, SMALL = 90, 26  # pixels of a cell, of two classes and of many
MANY = 8  # classes: beyond these the smaller cells and letters


def chart(rows: list[Row]) -> alt.VConcatChart | alt.LayerChart:
    """The matrix of each cell that has one, one below the other."""
    import altair as alt

    shown = classified(rows)
    drawn = [_matrix(row) for row in shown]
    if len(drawn) > 1:
        named = zip(shown, drawn, strict=True)
        drawn = [alt.vconcat(*(one.properties(title=name_of(row, rows)) for row, one in named))]
    return drawn[0].configure(**_config() | {"title": {"color": "currentColor", "fontWeight": "normal"}})


def _matrix(row: Row) -> alt.LayerChart:
    """True labels down, predicted ones across; the colour is the share of the true label's rows, the text counts them.

    The colour's strength is its opacity, so that an empty cell has the colour of the page, whichever that is.
    """
    import altair as alt

    cells, order = frame(row), list(row["confusion"])
    many = len(order) > MANY
    size = SMALL if many else LARGE
    axis = {"labelLimit": 260, "domain": False, "ticks": False, "grid": False, "labelOverlap": False}
    x = alt.X("predicted:N", sort=order, title="Predicted", axis=alt.Axis(labelAngle=-45 if many else 0, **axis))
    y = alt.Y("true:N", sort=order, title="True label", axis=alt.Axis(**axis))
    tooltip = [
        alt.Tooltip("true:N", title="true"), alt.Tooltip("predicted:N"), alt.Tooltip("rows:Q", format=","),
        alt.Tooltip("share:Q", title="of the true label", format=".1%"),
    ]  # fmt: skip
    base = alt.Chart(cells).encode(x=x, y=y)
    strength = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0, 0.75]), legend=None)
    squares = base.mark_rect(color=PALETTE[0]).encode(opacity=strength, tooltip=tooltip)
    frames = base.mark_rect(filled=False, stroke="currentColor", strokeOpacity=0.15, strokeWidth=1)
    text = base.transform_filter("datum.rows > 0").mark_text(color="currentColor", fontSize=8 if many else 14)
    layers = alt.layer(squares, frames, text.encode(text="shown:N"))
    return layers.properties(width=alt.Step(size), height=alt.Step(size))


def frame(row: Row) -> pd.DataFrame:
    """The matrix, one line per pair of labels."""
    many = len(row["confusion"]) > MANY
    return pd.DataFrame(
        {
            "true": true,
            "predicted": predicted,
            "rows": count,
            "share": _rounded(count / (sum(counts.values()) or 1)),
            "shown": short(count) if many else f"{count:,}",
        }
        for true, counts in row["confusion"].items()
        for predicted, count in counts.items()
    )


def short(count: int) -> str:
    """A count that fits a small cell: 987, 9.9k, 16k."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 9950 else f"{count / 1000:.0f}k"


def plot(rows: list[Row]) -> Shown | NotMeasured:
    """The pictures, or why there is none."""
    if not classified(rows):
        return NotMeasured("Confusion matrix", [reason(rows)])
    return Shown(chart(rows), " ".join(alt_text(row, rows) for row in classified(rows)))


def alt_text(row: Row, rows: list[Row]) -> str:
    """The picture in words: how much of each class is recognised."""
    said = [
        f"{one['label']} {one['recall']:.0%} of {one['support']:,}" if one["support"] else f"{one['label']} has no rows"
        for one in row["per_class"]
    ]
    return f"Confusion matrix ({name_of(row, rows)}). Recognised: {'; '.join(said)}."


def caption(rows: list[Row]) -> str | None:
    """What the pictures show; None where there is none."""
    if not (shown := classified(rows)):
        return None
    several = f", of {len(shown)} cells one after the other" if len(shown) > 1 else ""
    return (
        "Rows by true label and by predicted label; the stronger the colour, the larger the share of the true "
        f"label's rows{several}"
    )


def save(rows: list[Row], folder: Path) -> list[Path]:
    """Writes the pictures as SVG and PNG into `folder`."""
    if not classified(rows):
        return []
    drawn, written = chart(rows), []
    for ending, content in (("svg", svg(drawn)), ("png", png(drawn, scale=2))):
        paths.write_atomic(folder / f"{FIGURE}.{ending}", content)
        written.append(folder / f"{FIGURE}.{ending}")
    return written
