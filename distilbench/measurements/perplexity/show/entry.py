"""What perplexities show, under the names by which general code asks for it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.measurements.perplexity.records import DEFINITIONS
from distilbench.measurements.perplexity.show import plots, tables
from distilbench.report import load
from distilbench.report.glue import Value
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

TITLE = "Perplexity of a decoder, whole and compressed"
SUBJECT = "perplexity with keys and values whole and compressed"
OF_CONTENT = ("perplexity", *(f"{name}_perplexity" for name in DEFINITIONS))
NOTE = """\
Four definitions of perplexity, which must not be compared with each other. How many times the whole decoder's: by
disjoint windows, each scored by both; brackets give a 95 % interval over these windows."""
NUMBERS = (
    "ratio", *(f"{name}_perplexity" for name in DEFINITIONS), *(f"{name}_tokens" for name in DEFINITIONS), "chunks",
    "length", "word_perplexity", "byte_perplexity", "bits_per_byte", "effective_ratio", "retained_k", "retained_v",
    "ratio_of_baseline",
)  # fmt: skip


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell, as text."""
    return tables.cells(summary["cells"])


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The same of a table of several runs."""
    return tables.cells(table.to_dict("records"))


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, unrounded, for other programs."""
    names = ("cell", "form", "text", "state")
    return pd.DataFrame(
        {"run_id": run.run_id} | {name: row[name] for name in names} | _numbers(row) for row in run.summary["cells"]
    )


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: row.get(name) for name in NUMBERS}
    found["ratio_of_baseline_low"], found["ratio_of_baseline_high"] = row.get("ratio_95") or (None, None)
    return found


def numbers(run: Run) -> dict[str, Value]:
    """The numbers that prose may name: of the run, and per cell `<cell>-<name>`."""
    found: dict[str, Value] = {
        "run_id": run.run_id,
        "machine": load.label(run),
        "model": run.model["name"],
        "data": run.data["name"],
        "data_tokens": run.data["tokens"],
    }
    for row in run.summary["cells"]:
        known = {name: value for name, value in _numbers(row).items() if tables.known(value)}
        found |= {f"{row['cell']}-{name}": value for name, value in known.items()}
    return found


def caption(table: pd.DataFrame) -> str:
    """What the numbers of a table are."""
    return "Perplexity by four definitions, and what compression costs"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    known = [cell for cell in summary["cells"] if cell.get("disjoint_perplexity")]
    whole = [cell for cell in known if cell["form"] == "baseline"]
    said = [f"{cell['disjoint_perplexity']:.2f} on the {cell['text']} text" for cell in whole]
    if not said:
        return "Nothing was measured."
    others = [cell for cell in known if cell.get("ratio_of_baseline")]
    worst = max(others, key=lambda cell: cell["ratio_of_baseline"], default=None)
    more = f"; at most {tables.against(worst)} times that, with {worst['cell']}" if worst else ""
    return f"Perplexity of the whole decoder: {' and '.join(said)}{more}."


def sentences(table: pd.DataFrame) -> list[str]:
    """What compression costs, form by form."""
    return [
        f"{row['text']}, {tables.NAMES[row['form']]}, {row['effective_ratio']:.3f} kept: {tables.against(row)} times "
        "the perplexity of the whole decoder"
        for row in table.to_dict("records")
        if tables.known(row.get("ratio_of_baseline"))
    ]


def details(table: pd.DataFrame, label: str) -> list[Table]:
    """What each form keeps, where a run has perplexities as a section."""
    caption_ = "What each form keeps of keys and values over the calibration"
    return [Table(tables.energies(table.to_dict("records")), caption_, f"{label}-energies")]


def about(run: Run) -> dict[str, str | int]:
    """What was measured on what."""
    params = run.config["parameters"]
    return {
        "model": f"{run.model['name']}, {run.model['parameters']:,} parameters, {params['dtype']}",
        "text": f"{run.data['name']}, {run.data['tokens']:,} tokens",
        "windows": f"{params['windows']} of {params['length']} tokens at most, by each definition",
    }


def subject(run: Run) -> list[str]:
    """What was measured, in a line each."""
    return [f"model: {run.model['name']}", f"text: {run.data['name']}, {run.data['tokens']:,} tokens"]


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say."""
    return "So few windows cannot say how sure a perplexity is."


figure_caption, picture, save = plots.caption, plots.by_ratio, plots.save


def counted(run: Run) -> str:
    """What was computed again when the run was verified."""
    return f"{len(run.measured())} texts computed again from their windows"
