"""Which way of executing and which batch size to take, of those that a run measured, for each of four aims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.errors import RunError
from distilbench.measurements.sweep.show import findings
from distilbench.measurements.sweep.show.optimal import Limits, keeps, least
from distilbench.report import charts, load, spread
from distilbench.report.charts import PALETTE, Shown, _config, _rounded
from distilbench.report.tables import DASH, number
from distilbench.runs.folder import Run

Cell = dict[str, Any]
FIGURE = "pareto"


@dataclass(frozen=True)
class Aim:
    """What one may want most.

    Attributes:
        name: in tables.
        number: the field of a cell that decides.
        sign: 1 where more of it is better, -1 where less is.
        single: whether only batches of one sentence are asked.
    """

    name: str
    number: str
    sign: int
    single: bool = False


AIMS = (
    Aim("latency", "latency_ms", -1, single=True),
    Aim("throughput", "throughput_samples_per_s", 1),
    Aim("memory", "peak_memory_MiB", -1),
    Aim("energy", "energy_per_sample_J", -1),
)


def recommended(run: Run, limits: Limits) -> list[tuple[Aim, Cell | None]]:
    """For each aim the best cell within the limits; None where its number was measured in none of them.

    Raises:
        RunError: no cell keeps within the limits; the least that any takes is said.
    """
    every = [cell for cell in run.kind.showing.rows(run) if cell["throughput_samples_per_s"] is not None]
    within = [cell for cell in every if keeps(cell, limits)]
    if not within:
        raise RunError(f"nothing that run {run.run_id} measured keeps within {limits}: {least(every, limits)}")
    return [(aim, _best(within, aim)) for aim in AIMS]


def _best(cells: list[Cell], aim: Aim) -> Cell | None:
    known = [cell for cell in cells if cell.get(aim.number) is not None]
    asked = [cell for cell in known if not aim.single or cell["batch_size"] == 1]
    return max(asked, key=lambda cell: aim.sign * cell[aim.number], default=None)


def table(found: list[tuple[Aim, Cell | None]]) -> pd.DataFrame:
    """One row per aim, as text."""
    return pd.DataFrame(_row(aim, cell) for aim, cell in found).fillna(DASH)


def _row(aim: Aim, cell: Cell | None) -> dict[str, str]:
    if cell is None:
        return {"for": aim.name, "variant": DASH, "note": "not measured" if not aim.single else "no single sentences"}
    return {
        "for": aim.name,
        "variant": cell["variant"],
        "length": cell["length_policy"],
        "batch": str(cell["batch_size"]),
        "latency (ms)": _with_ends(cell, "latency_ms", ".2f"),
        "samples/s": number(cell["throughput_samples_per_s"], ".1f"),
        "memory (MiB)": number(cell.get("peak_memory_MiB"), ",.0f"),
        "J per sample": number(cell.get("energy_per_sample_J"), ".3g"),
        "accuracy": number(cell.get("accuracy"), ".4f"),
        "note": findings.mark(cell.get("state")).strip() or DASH,
    }


def _with_ends(cell: Cell, name: str, form: str) -> str:
    ends = spread.ends(cell, name)
    return f"{cell[name]:{form}}" + (f" ({ends[0]:{form}} to {ends[1]:{form}})" if ends else "")


def headline(run: Run, limits: Limits) -> str:
    """What was chosen from, and where."""
    within = f" within {limits}" if str(limits) else ""
    profile = run.config["parameters"]["profile"]
    doubt = "" if profile == "full" else f"; profile {profile}: not for citation"
    return f"Of what run {run.run_id} measured{within}, on {load.label(run)}{doubt}."


# ------------------------------------------------------------------ what is best in two ways at once


def front(cells: list[Cell]) -> list[Cell]:
    """The cells that no other one beats in latency and throughput at once, by rising latency.

    Of equal latency the one of highest throughput.
    """
    found: list[Cell] = []
    for cell in sorted(cells, key=lambda cell: (cell["latency_ms"], -cell["throughput_samples_per_s"])):
        if not found or cell["throughput_samples_per_s"] > found[-1]["throughput_samples_per_s"]:
            found.append(cell)
    return found


def picture(run: Run, limits: Limits) -> Shown:
    """Throughput against latency: all cells, those within the limits filled, and the front of these."""
    cells = [cell for cell in run.kind.showing.rows(run) if cell["throughput_samples_per_s"] is not None]
    best = front([cell for cell in cells if keeps(cell, limits)])
    rows = pd.DataFrame(_points(cells, limits))
    words = "; ".join(
        f"{one['cell']}: {one['latency_ms']:.4g} ms, {one['throughput_samples_per_s']:.4g}/s" for one in best
    )
    return Shown(
        _chart(rows, pd.DataFrame(_points(best, limits))), f"Throughput against latency; on the front: {words}."
    )


def _points(cells: list[Cell], limits: Limits) -> Iterator[dict[str, Any]]:
    for cell in cells:
        yield {
            "variant": f"{cell['variant']}, {cell['length_policy']}",
            "batch": cell["batch_size"],
            "latency": _rounded(cell["latency_ms"]),
            "throughput": _rounded(cell["throughput_samples_per_s"]),
            "within": keeps(cell, limits),
        }


def _chart(rows: pd.DataFrame, best: pd.DataFrame) -> Any:
    import altair as alt

    names = list(rows["variant"].unique())
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(names))]
    x = alt.X("latency:Q", title="Latency of a batch (ms)", scale=alt.Scale(type="log", nice=False, padding=20))
    y = alt.Y("throughput:Q", title="Samples/s", scale=alt.Scale(zero=False))
    step = alt.Chart(best).mark_line(interpolate="step-after", opacity=0.5, color="currentColor").encode(x=x, y=y)
    points = (
        alt.Chart(rows)
        .mark_point(size=70)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "variant:N",
                scale=alt.Scale(domain=names, range=colours),
                legend=alt.Legend(orient="top", title=None, columns=3, labelLimit=300),
            ),
            opacity=alt.when("datum.within").then(alt.value(1)).otherwise(alt.value(0.25)),
            tooltip=["variant:N", "batch:Q", "latency:Q", "throughput:Q"],
        )
    )
    names_of = alt.Chart(best).mark_text(dy=-12, color="currentColor").encode(x=x, y=y, text="batch:Q")
    return (step + points + names_of).properties(width=560, height=300).configure(**_config())


def save(run: Run, limits: Limits, folder: Path) -> list[Path]:
    """Writes the picture as SVG and PNG."""
    return charts.save({FIGURE: picture(run, limits)}, folder)
