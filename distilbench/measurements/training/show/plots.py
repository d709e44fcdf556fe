"""Pictures of trainings: what two processes do in the same steps, and how the loss falls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from distilbench.measurements.training.records import STEPS, TRAIN, file_name
from distilbench.report import charts
from distilbench.report.charts import PALETTE, NotMeasured, Shown, _config, _legend, _rounded
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet
from distilbench.training.steps import PHASES

if TYPE_CHECKING:
    import altair as alt

SHOWN_STEPS = 3  # of the timeline
SMOOTHED = 20  # steps over which the loss is averaged, with their rows
POINTS = 150  # of a curve, at most
NAMES = {"data": "data", "forward": "forward", "backward": "backward", "optimizer": "update", "allreduce": "all-reduce"}
ORDER = list(NAMES.values())
TIMELINE, LOSS = "timeline", "loss"


def timeline(run: Run) -> Shown | NotMeasured:
    """Some consecutive steps of two processes, each phase where it was, and the all-reduce beside it."""
    found = _timeline_rows(run)
    if found is None:
        return NotMeasured("Timeline of two processes", ["no repetition with two processes was measured"])
    table, what = found
    return Shown(_timeline_chart(table), f"Timeline of {SHOWN_STEPS} steps of {what}: {_in_words(table)}.")


def _timeline_rows(run: Run) -> tuple[pd.DataFrame, str] | None:
    """The phases as bars, from the median repetition's middle steps: (table, which configuration)."""
    many = [one for one in run.measured() if one.pass_ == STEPS and one.processes > 1]
    if not many:
        return None
    chosen = [one for one in many if one.cell == many[0].cell]
    record = sorted(chosen, key=lambda one: one.step_ms)[len(chosen) // 2]
    rows = read_parquet(run.folder / file_name(record.cell, STEPS, record.repetition, "steps"))
    first = record.warmup_steps + max(0, record.timed_steps - SHOWN_STEPS) // 2 + 1
    some = [row for row in rows if first <= row["step"] < first + SHOWN_STEPS]
    begun = min(row["started_ns"] for row in some)
    return pd.DataFrame([bar for row in some for bar in _bars(row, begun)]), record.cell


def _bars(row: dict[str, Any], begun: int) -> list[dict[str, Any]]:
    """The phases of a step one after the other; the all-reduce, which runs beside them, in a lane of its own."""
    at, found = (row["started_ns"] - begun) / 1e6, []
    where = {"process": f"process {row['rank']}", "step": row["step"]}
    reduced = at + row["allreduce_start_ms"]
    for phase in PHASES:
        end = at + row[f"{phase}_ms"]
        found.append(where | {"lane": "computes", "what": NAMES[phase], "from": _rounded(at), "to": _rounded(end)})
        at = end
    end = reduced + row["allreduce_ms"]
    bar = {"lane": "sends", "what": NAMES["allreduce"], "from": _rounded(reduced), "to": _rounded(end)}
    return [*found, where | bar]


def _timeline_chart(table: pd.DataFrame) -> alt.Chart:
    import altair as alt

    scale = alt.Scale(domain=ORDER, range=[PALETTE[4], PALETTE[0], PALETTE[5], PALETTE[3], PALETTE[1]])
    chart = alt.Chart(table).mark_bar(height=20)
    drawn = chart.encode(
        x=alt.X("from:Q", title="Time (ms)"),
        x2="to:Q",
        y=alt.Y("lane:N", title=None, axis=alt.Axis(ticks=False, domain=False)),
        color=alt.Color("what:N", scale=scale, legend=alt.Legend(orient="top", title=None)),
        row=alt.Row("process:N", title=None, spacing=6, header=alt.Header(labelAngle=0, labelAlign="left")),
        tooltip=[
            "process:N",
            "step:Q",
            "what:N",
            alt.Tooltip("from:Q", format=".1f"),
            alt.Tooltip("to:Q", format=".1f"),
        ],
    )
    return drawn.properties(width=560, height=alt.Step(26)).configure(**_config())


def _in_words(table: pd.DataFrame) -> str:
    spans = table.assign(ms=table["to"] - table["from"])
    mean = spans.groupby("what")["ms"].mean()
    return ", ".join(f"{name} {mean[name]:.1f} ms" for name in ORDER)


def loss(run: Run) -> Shown | NotMeasured:
    """The training loss of each whole training over the rows that were seen."""
    records = [one for one in run.measured() if one.pass_ == TRAIN]
    if not records:
        return NotMeasured("Training loss", ["nothing was trained to the end"])
    table = pd.DataFrame([point for one in records for point in _loss_points(run, one)])
    ends = table.groupby("configuration", sort=False)["loss"].last()
    words = ", ".join(f"{name} {value:.3f}" for name, value in ends.items())
    return Shown(_loss_chart(table), f"Training loss over the rows seen; at the end: {words}.")


def _loss_points(run: Run, record: Any) -> list[dict[str, Any]]:
    rows = pd.DataFrame(read_parquet(run.folder / file_name(record.cell, TRAIN, record.repetition, "steps")))
    steps = rows.groupby("step")[["samples", "loss_sum"]].sum()
    groups = max(1, len(steps) // max(SMOOTHED, -(-len(steps) // POINTS)))  # alike, the last one too
    steps["group"] = [number * groups // len(steps) for number in range(len(steps))]
    grouped = steps.groupby("group").sum()
    seen = grouped["samples"].cumsum()
    return [
        {"configuration": record.cell, "rows": int(at), "loss": _rounded(total / count)}
        for at, total, count in zip(seen, grouped["loss_sum"], grouped["samples"], strict=True)
    ]


def _loss_chart(table: pd.DataFrame) -> alt.Chart:
    import altair as alt

    names = list(table["configuration"].unique())
    colour = alt.Color(
        "configuration:N",
        scale=alt.Scale(domain=names, range=PALETTE[: len(names)]),
        legend=_legend(table, "configuration"),
        title=None,
    )
    drawn = (
        alt.Chart(table)
        .mark_line(point=True)
        .encode(
            x=alt.X("rows:Q", title="Rows seen", axis=alt.Axis(format="~s", tickCount=6)),
            y=alt.Y("loss:Q", title="Training loss"),
            color=colour,
            tooltip=["configuration:N", alt.Tooltip("rows:Q", format=","), alt.Tooltip("loss:Q", format=".3f")],
        )
    )
    return drawn.properties(width=560, height=260).configure(**_config())


def caption(run: Run, figure: str) -> str | None:
    """What a picture shows; None where there is none."""
    passes = {one.pass_ for one in run.measured() if one.processes > 1}
    if figure.endswith(f"-{TIMELINE}") and STEPS in passes:
        return (
            f"{SHOWN_STEPS} consecutive steps of each process, as they were timed, from the repetition with the median "
            "step. Gradients are under way (all-reduce) while the backward pass still computes others; a process that "
            "is ahead waits for the others there."
        )
    if figure.endswith(f"-{LOSS}") and any(one.pass_ == TRAIN for one in run.measured()):
        return "Training loss over the rows seen, averaged over consecutive steps."
    return None


def save(run: Run, folder: Path) -> list[Path]:
    """Writes the pictures as SVG and PNG into `folder`."""
    return charts.save({TIMELINE: timeline(run), LOSS: loss(run)}, folder)
