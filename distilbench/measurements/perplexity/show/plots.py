"""The picture of perplexities: how many times the whole decoder's, by the fraction that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.measurements.perplexity.show.tables import NAMES
from distilbench.report import charts
from distilbench.report.charts import PALETTE, NotMeasured, Shown, _config, _rounded
from distilbench.runs.folder import Run

FIGURE = "perplexity"
CAPTION = (
    "Perplexity over the whole decoder's by the fraction of keys and values that is kept, with intervals over windows; "
    "the vertical axis is logarithmic."
)


def by_ratio(run: Run) -> Shown | NotMeasured:
    """Perplexity against the whole decoder's, a panel per text."""
    table = _rows(run.summary["cells"])
    if table.empty:
        return NotMeasured("Perplexity by ratio", ["no compressed form was scored beside the whole decoder"])
    ends = table.sort_values("kept").groupby(["text", "form"], sort=False).first()
    words = "; ".join(
        f"{text}, {form}: {row['times']:.3g} at {row['kept']:.2g}" for (text, form), row in ends.iterrows()
    )
    return Shown(_chart(table), f"Perplexity over the whole decoder's by ratio: {words}.")


def _rows(cells: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": cell["text"],
            "form": NAMES[cell["form"]],
            "kept": _rounded(cell["effective_ratio"]),
            "times": _rounded(cell["ratio_of_baseline"]),
            "low": _rounded((cell["ratio_95"] or [cell["ratio_of_baseline"]])[0]),
            "high": _rounded((cell["ratio_95"] or [cell["ratio_of_baseline"]])[-1]),
        }
        for cell in cells
        if cell.get("ratio_of_baseline")
    )


def _chart(table: pd.DataFrame) -> Any:
    import altair as alt

    names = [name for name in NAMES.values() if name in set(table["form"])]
    reach = [table["low"].min() * 0.98, table["high"].max() * 1.02]
    base = alt.Chart(table).encode(
        x=alt.X("kept:Q", title="Fraction that is kept", scale=alt.Scale(zero=False)),
        color=alt.Color(
            "form:N",
            scale=alt.Scale(domain=names, range=PALETTE[: len(names)]),
            legend=alt.Legend(orient="top", title=None, columns=1, labelLimit=300),
        ),
    )
    ends = base.mark_rule(opacity=0.6).encode(
        y=alt.Y("low:Q", title="Times the perplexity", scale=alt.Scale(type="log", nice=False, domain=reach)),
        y2="high:Q",
    )
    lines = base.mark_line(point=True).encode(
        y="times:Q",
        strokeDash=alt.StrokeDash("form:N", scale=alt.Scale(domain=names, range=DASHES[: len(names)]), legend=None),
        tooltip=["text:N", "form:N", "kept:Q", alt.Tooltip("times:Q", title="times the perplexity", format=".4~g")],
    )
    panels = (ends + lines).properties(width=250, height=220)
    return panels.facet(column=alt.Column("text:N", title=None)).configure(**_config())


DASHES = [[1, 0], [6, 3], [2, 2]]


def caption(run: Run, figure: str) -> str | None:
    """What the picture shows; None where there is none."""
    return CAPTION if figure.endswith(f"-{FIGURE}") and not _rows(run.summary["cells"]).empty else None


def save(run: Run, folder: Path) -> list[Path]:
    """Writes the picture as SVG and PNG into `folder`."""
    return charts.save({FIGURE: by_ratio(run)}, folder)
