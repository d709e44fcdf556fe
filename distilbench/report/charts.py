"""Charts in general: one look for all, interactive offline, static in print."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import vl_convert

from distilbench import paths

if TYPE_CHECKING:
    import altair as alt

VEGA_LITE = "6.4"
#: Okabe & Ito's colours that keep 3:1 contrast to white and to near-black; one per machine.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]


def hollow() -> Any:
    """The opacity of a point's inside: none where its cell is unstable."""
    import altair as alt  # here: it takes a second or more, and most that is shown is no chart

    return alt.when("datum.state == 'unstable'").then(alt.value(0)).otherwise(alt.value(1))


def marks(rows: pd.DataFrame) -> str:
    """What a hollow point is; "" where there is none."""
    unstable = (rows["state"] == "unstable").any()
    return "Hollow points are unstable: a process had not settled when its warm-up was cut off. " if unstable else ""


def _rounded(value: float) -> float:
    """Five significant digits: more than a plot shows, and fewer bytes."""
    return float(f"{value:.5g}")


def _legend(rows: pd.DataFrame, column: str) -> alt.Legend | None:
    """No legend for what does not vary: the caption says it."""
    import altair as alt

    columns = 1 if rows[column].str.len().max() > 20 else 4
    return alt.Legend(orient="top", labelLimit=400, columns=columns) if rows[column].nunique() > 1 else None


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


def save(shown: Mapping[str, Shown | NotMeasured], folder: Path) -> list[Path]:
    """Writes what could be drawn as SVG and PNG into a folder, by its names; returns the files."""
    written = []
    for name, one in shown.items():
        if isinstance(one, Shown):
            for ending, content in (("svg", svg(one.drawn)), ("png", png(one.drawn, scale=2))):
                paths.write_atomic(folder / f"{name}.{ending}", content)
                written.append(folder / f"{name}.{ending}")
    return written


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
