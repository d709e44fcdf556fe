"""The picture of dimension alignment: time by dimension, with multiples of a block marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.measurements.alignment.show.tables import NAMES
from distilbench.report import charts
from distilbench.report.charts import PALETTE, NotMeasured, Shown, _config, _rounded
from distilbench.runs.folder import Run

FIGURE = "alignment"
CAPTION = (
    "Time of an operation by its dimension. Filled points are multiples of eight, hollow ones are not; scales begin "
    "above zero."
)


def by_dimension(run: Run) -> Shown | NotMeasured:
    """Time by dimension, a panel per operation."""
    table = _rows(run.summary["cells"])
    if table.empty:
        return NotMeasured("Time by dimension", ["no operation was timed"])
    ends = table.groupby("operation", sort=False).agg(least=("ms", "min"), most=("ms", "max"))
    words = "; ".join(f"{name} {row['least']:.3g} to {row['most']:.3g} ms" for name, row in ends.iterrows())
    return Shown(_chart(table), f"Time by dimension: {words}.")


def _rows(cells: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "operation": NAMES[cell["operation"]],
            "dimension": one["dimension"],
            "ms": _rounded(one["latency_ms"]),
            "kind": "multiple of 8" if one["dimension"] % 8 == 0 else "other",
        }
        for cell in cells
        for one in cell["dimensions"]
    )


def _chart(table: pd.DataFrame) -> Any:
    import altair as alt

    kinds, legend = ["multiple of 8", "other"], alt.Legend(orient="top", title=None)
    base = alt.Chart(table).encode(
        x=alt.X("dimension:Q", title="Dimension", scale=alt.Scale(zero=False)),
        y=alt.Y("ms:Q", title="Time (ms)", scale=alt.Scale(zero=False)),
        color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=PALETTE[:2]), legend=legend),
        tooltip=["operation:N", "dimension:Q", alt.Tooltip("ms:Q", title="Time (ms)", format=".4~g")],
    )
    line = base.mark_line(strokeWidth=1, opacity=0.4).encode(color=alt.value(PALETTE[0]))
    aligned = base.transform_filter("datum.kind !== 'other'").mark_point(filled=True, size=45, opacity=1)
    others = base.transform_filter("datum.kind === 'other'").mark_point(size=30)
    panels = (line + others + aligned).properties(width=520, height=150)
    order = list(table["operation"].unique())
    facet = alt.Facet("operation:N", title=None, sort=order)
    return panels.facet(facet=facet, columns=1).resolve_scale(y="independent").configure(**_config())


def caption(run: Run, figure: str) -> str | None:
    """What the picture shows; None where there is none."""
    return CAPTION if figure.endswith(f"-{FIGURE}") and not _rows(run.summary["cells"]).empty else None


def save(run: Run, folder: Path) -> list[Path]:
    """Writes the picture as SVG and PNG into `folder`."""
    return charts.save({FIGURE: by_dimension(run)}, folder)
