"""summary.json of task scores: those of each cell, against the whole decoder on the same questions; the doubts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.lowrank.params import BASELINE
from distilbench.measurements.task_scores.records import TaskRecord, cell_name, file_name
from distilbench.measurements.task_scores.summary import derive
from distilbench.runs.measurement import summary_head
from distilbench.runs.rawfiles import read_parquet, read_raw
from distilbench.runs.states import MEASURED
from distilbench.stats import t_interval, wilson_interval

SUMMARY_VERSION = 1
Cell = dict[str, Any]
AGREES_nat = 1e-4  # the two scorers in float32: they batch differently, and so round differently
NUMBERS = (
    "documents", "accuracy", "accuracy_norm", "chance", "margin_nat", "checked", "own_difference_nat", "own_disagreed",
    "seconds_per_document_s", "effective_ratio", "output_type",
)  # fmt: skip
#: To find a true difference in four of five cases at the level of 5 %: the quantiles of both errors.
SIDES = 1.959964 + 0.841621


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run, a pure function of its other files."""
    config = paths.read_json(folder / "config.json")
    records = {one.cell: one for one in read_raw(folder / "task_scores.jsonl", TaskRecord)[0]}
    cells = []
    for cell in config["cells"]:
        own = records.get(cell["cell"])
        said: Cell = {"state": own.status if own else "pending"}
        if own and own.status in MEASURED:
            said = {"state": "ok"} | {name: getattr(own, name) for name in NUMBERS}
            right = round(own.accuracy * own.documents)
            said["accuracy_95"] = list(wilson_interval(right, own.documents))
            base = records.get(cell_name(BASELINE, cell["task"], cell["shots"]))
            if base and base.status in MEASURED and base is not own:
                said |= against(folder, base, own)
        cells.append(cell | said)
    for cell in cells:
        cell["doubts"] = _doubts(cell, records.get(cell["cell"]))
    return summary_head(config, SUMMARY_VERSION) | {"cells": cells}


def against(folder: Path, base: TaskRecord, own: TaskRecord) -> Cell:
    """What a variant answers that the baseline does not, and the other way round, question by question.

    McNemar's exact test (McNemar 1947, Psychometrika 12) asks only those that one of them answered. `visible` is the
    difference that so many questions of which so many differ would show in four of five cases.

    Raises:
        RunError: the two were asked different questions.
    """
    if base.documents_sha256 != own.documents_sha256:
        raise RunError(
            f"{base.cell} and {own.cell} cannot be compared: documents_sha256 is {base.documents_sha256} and "
            f"{own.documents_sha256}"
        )
    both = [read_parquet(folder / file_name(one.cell)) for one in (base, own)]
    if len(both[0]) != len(both[1]):
        raise RunError(f"the files of {base.cell} and {own.cell} have {len(both[0])} and {len(both[1])} questions")
    pairs = list(zip(*both, strict=True))
    right = [(derive.correct(a), derive.correct(b)) for a, b in pairs]
    lost, won = sum(a and not b for a, b in right), sum(b and not a for a, b in right)
    differences = [int(b) - int(a) for a, b in right]
    found: Cell = {
        "accuracy_difference": sum(differences) / len(differences),
        "accuracy_difference_95": _pair(t_interval(differences)),
        "lost": lost,
        "won": won,
        "mcnemar_p": exact_p(lost, won),
        "visible": SIDES * math.sqrt(max(lost + won, 1) / len(right) / len(right)),
        "margin_difference_nat": None,
        "margin_difference_95": None,
    }
    if own.margin_nat is not None:
        margins = [derive.margin(b) - derive.margin(a) for a, b in pairs]
        found["margin_difference_nat"] = math.fsum(margins) / len(margins)
        found["margin_difference_95"] = _pair(t_interval(margins))
    return found


def exact_p(lost: int, won: int) -> float:
    """How probable a split at least as uneven is where both are as likely, of a fair coin."""
    n, least = lost + won, min(lost, won)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)


def _pair(ends: tuple[float, float] | None) -> list[float] | None:
    return list(ends) if ends else None


def _doubts(cell: Cell, record: TaskRecord | None) -> list[str]:
    said = []
    if cell["state"] != "ok":
        return said
    if record.dtype == "float32" and (cell["own_difference_nat"] or 0) > AGREES_nat:
        said.append(f"a scorer of our own differs by {cell['own_difference_nat']:.2g} nat; {AGREES_nat:g} is allowed")
    if cell["own_disagreed"]:
        said.append(f"{cell['own_disagreed']} of {cell['checked']} texts differ from those written without a cache")
    if cell["chance"] and cell["accuracy_95"][0] <= cell["chance"]:
        said.append(f"accuracy is not surely above guessing ({cell['chance']:.2f}): it tells damage only roughly")
    return said
