"""How a kind of measurement is shown where it does not say otherwise (see `Measurement.show`).

A kind of one pass whose numbers are fields of a cell says what it is called, what was measured, and a headline. The
names of its fields end in their units, as everywhere: `copy_ms` is shown as "copy (ms)".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from distilbench import paths
from distilbench.report import load, tables
from distilbench.report import readings as of_processes
from distilbench.report.charts import NotMeasured
from distilbench.report.doubts import NUMBER, Doubt, in_one
from distilbench.report.glue import Value
from distilbench.runs.folder import Run

TITLE = ""  # what its pages are about; "": the study
SUBJECT = "what the study measures"
NOTE = ""  # what its numbers are, below its table in run_summary.md
HIDDEN = ("cell", "state", "run_id", "machine", "control_of")  # of a cell: no numbers
OF_CONTENT = ("accuracy",)  # numbers that say nothing of another model or another text than their run's


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    measured_ = sum(cell["state"] == "ok" for cell in summary["cells"])
    return f"{measured_} of {len(summary['cells'])} cells were measured."


def title(run: Run) -> str:
    """What its page is about; the machine follows."""
    return run.kind.showing.TITLE or f"Study {run.config['study']}"


def cited(run: Run) -> str:
    """What was measured, for a citation; the machine follows."""
    return f"{title(run)}: {run.kind.showing.SUBJECT}"


def measured_with(run: Run) -> str:
    """What a caption says after the machine."""
    return f"; {run.kind.showing.SUBJECT}"


def page_name(run: Run) -> str:
    """The name of its page where no other is given."""
    return run.config["parameters"]["device"].replace(":", "")


def about(run: Run) -> dict[str, str | int]:
    """What was measured, and how often."""
    counts = ", ".join(f"{pass_name}: {count}" for pass_name, count in load.processes(run).items())
    return {"measured on": run.kind.showing.SUBJECT, "fresh processes per cell": counts or "none"}


def subject(run: Run) -> list[str]:
    """What was measured, in a line each."""
    return [f"what: {run.kind.showing.SUBJECT}"]


# ------------------------------------------------------------------ its cells


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """The cells of a run, for tables of several runs."""
    yield from paths.read_json(run.folder / "summary.json")["cells"]


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell, as text."""
    return run.kind.showing.measured(pd.DataFrame(summary["cells"]))


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The same of a table of several runs (`load.table`); the machine where there are several."""
    several = "machine" in table and table["machine"].nunique() > 1
    names = [*["machine"] * several, "cell", *_fields(table, (dict,)), "state"]
    return pd.DataFrame({tables.heading(name): table[name].map(_shown) for name in names})


def _fields(table: pd.DataFrame, but: tuple[type, ...] = (dict, list)) -> list[str]:
    """What the table holds of each cell, but what is of these types."""
    plain = ~table.map(lambda value: isinstance(value, but)).any()
    return [name for name in table.columns[plain] if name not in HIDDEN]


def _shown(value: Any) -> str:
    if isinstance(value, list):  # an interval
        return " to ".join(map(_shown, value))
    if pd.isna(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, unrounded, for other programs."""
    table = load.table([run])
    return table[["run_id", "machine", "cell", *_fields(table), "state"]]


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return "Per cell, over its fresh processes"


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: run_id, machine, and `<cell>-<field>`; what was not measured has no name."""
    table = load.table([run])
    found: dict[str, Value] = {"run_id": run.run_id, "machine": load.label(run)}
    for row in table.to_dict("records"):
        found |= {f"{row['cell']}-{name}": row[name] for name in _fields(table) if pd.notna(row[name])}
    return found


def mark_of(name: str) -> str | None:
    """No number comes from a cell that may be unstable."""
    return None


def readings(run: Run, number: str, proof: Mapping[str, Any]) -> list[of_processes.Readings]:
    """What each process of each cell says of a number, for verdicts on claims (see `readings.of_records`)."""
    return of_processes.of_records(run, number, proof)


def sentences(table: pd.DataFrame) -> list[str]:
    """No findings in words."""
    return []


def details(table: pd.DataFrame, label: str) -> list[tables.Table]:
    """No tables but the main one, where a run has it as a section.

    Args:
        label: with which the labels of the tables begin.
    """
    return []


def picture(run: Run) -> NotMeasured:
    """No picture of its own, where a run has it as a section."""
    return NotMeasured(run.kind.showing.SUBJECT, ["there is no picture of it"])


def figure_caption(run: Run, figure: str) -> str | None:
    """No figures."""
    return None


def rendered(runs: list[Run]) -> dict[str, str]:
    """By their names in the checkout, further files that are rendered from the published runs of a study: none."""
    return {}


# ------------------------------------------------------------------ what is doubtful


def doubts(summary: dict[str, Any]) -> list[str]:
    """What was not measured, and what a reader must know of the numbers of a cell, where it has `doubts`."""
    said = [f"{cell['cell']}: not measured ({cell['state']})" for cell in summary["cells"] if cell["state"] != "ok"]
    return said + [f"{cell['cell']}: {doubt}" for cell in summary["cells"] for doubt in cell.get("doubts", [])]


def causes(run: Run, summary: dict[str, Any]) -> list[Doubt]:
    """The doubts by cause: what is said of several cells in the same words, but for numbers, is one."""
    names = [cell["cell"] for cell in summary["cells"]]
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for line in run.kind.showing.doubts(summary):
        cell, _, text = line.partition(": ")
        said = (text, [cell]) if cell in names else (line, [])
        found.setdefault(NUMBER.sub("N", said[0]), []).append(said)
    return [
        Doubt(in_one([text for text, _ in said]), "", tuple(cell for _, mine in said for cell in mine), len(names))
        for said in found.values()
    ]


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say, in a sentence."""
    return "This run cannot say how sure its numbers are."


def limitations(run: Run) -> list[str]:
    """What the run cannot say: what its profile is not good for, then each cell by itself."""
    summary = run.summary
    return [*([summary["note"]] if summary.get("note") else []), *run.kind.showing.doubts(summary)]


def advice(summary: dict[str, Any]) -> list[str]:
    """What to try next, and how much it can gain: nothing follows from times alone."""
    return []


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    return f"{len(run.measured())} repetitions computed again from their raw files"
