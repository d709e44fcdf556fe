"""The picture of task scores: accuracy by task and variant, with intervals and what guessing would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.measurements.task_scores.show.tables import NAMES
from distilbench.report import charts
from distilbench.report.charts import PALETTE, NotMeasured, Shown, _config, _rounded
from distilbench.runs.folder import Run

FIGURE = "tasks"
CAPTION = "Share of questions answered right, with Wilson's intervals; ticks mark what guessing gives."


def by_task(run: Run) -> Shown | NotMeasured:
    """Accuracy by task, number of examples and variant."""
    table = _rows(run.summary["cells"])
    if table.empty:
        return NotMeasured("Accuracy by task", ["no task was scored"])
    words = "; ".join(f"{row['task']}, {row['variant']} {row['accuracy']:.3f}" for row in table.to_dict("records"))
    return Shown(_chart(table), f"Accuracy by task: {words}.")


def _rows(cells: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": f"{cell['task']}, {cell['shots']}-shot",
            "variant": NAMES[cell["variant"]],
            "accuracy": _rounded(cell["accuracy"]),
            "low": _rounded(cell["accuracy_95"][0]),
            "high": _rounded(cell["accuracy_95"][1]),
            "chance": cell["chance"],
        }
        for cell in cells
        if cell["state"] == "ok"
    )


def _chart(table: pd.DataFrame) -> Any:
    import altair as alt

    names = [name for name in NAMES.values() if name in set(table["variant"])]
    base = alt.Chart(table).encode(y=alt.Y("task:N", title=None, sort=list(table["task"].unique()),
                                           axis=alt.Axis(labelLimit=260)))  # fmt: skip
    of_variant = base.encode(
        yOffset=alt.YOffset("variant:N", sort=names),
        color=alt.Color(
            "variant:N",
            scale=alt.Scale(domain=names, range=PALETTE[: len(names)]),
            legend=alt.Legend(orient="top", title=None),
        ),
    )
    ends = of_variant.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title="Accuracy", scale=alt.Scale(domain=[0, 1])), x2="high:Q"
    )
    points = of_variant.mark_point(filled=True, size=60, opacity=1).encode(
        x="accuracy:Q", tooltip=["task:N", "variant:N", "accuracy:Q", "low:Q", "high:Q"]
    )
    guessing = base.transform_filter("isValid(datum.chance)").mark_tick(
        thickness=1, size=36, color="currentColor", opacity=0.5
    ).encode(x="chance:Q")  # fmt: skip
    drawn = (guessing + ends + points).properties(width=420, height=alt.Step(22, **{"for": "position"}))
    return drawn.configure(**_config())


def caption(run: Run, figure: str) -> str | None:
    """What the picture shows; None where there is none."""
    return CAPTION if figure.endswith(f"-{FIGURE}") and not _rows(run.summary["cells"]).empty else None


def save(run: Run, folder: Path) -> list[Path]:
    """Writes the picture as SVG and PNG into `folder`."""
    return charts.save({FIGURE: by_task(run)}, folder)
