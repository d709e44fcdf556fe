"""summary.json of perplexities: those of each cell, and against the whole decoder on the same text; the doubts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.measurements.perplexity.records import (
    DISJOINT,
    ROLLING,
    PerplexityRecord,
    cell_name,
    file_name,
)
from distilbench.runs.measurement import summary_head
from distilbench.runs.rawfiles import read_parquet, read_raw
from distilbench.runs.states import MEASURED
from distilbench.stats import MIN_REPETITIONS, t_interval

SUMMARY_VERSION = 1
Cell = dict[str, Any]


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a run, a pure function of its other files."""
    config = paths.read_json(folder / "config.json")
    records = {one.cell: one for one in read_raw(folder / "perplexity.jsonl", PerplexityRecord)[0]}
    cells = []
    for cell in config["cells"]:
        own = records.get(cell["cell"])
        said = {"state": own.status if own else "pending"}
        if own and own.status in MEASURED:
            said["state"] = "ok"
            said |= _numbers(own)
            base = records.get(cell_name("baseline", 1.0, cell["text"]))
            if base and base.status in MEASURED and base is not own:
                said |= _against(folder, base, own)
        cells.append(cell | said)
    for cell in cells:
        cell["doubts"] = _doubts(cell)
    return summary_head(config, SUMMARY_VERSION) | {"cells": cells}


def _numbers(record: PerplexityRecord) -> Cell:
    found = {f"{one.definition}_perplexity": one.perplexity for one in record.perplexities}
    found |= {f"{one.definition}_tokens": one.tokens for one in record.perplexities}
    rolling = next(one for one in record.perplexities if one.definition == ROLLING)
    disjoint = next(one for one in record.perplexities if one.definition == DISJOINT)
    return found | {
        "chunks": disjoint.chunks,
        "word_perplexity": rolling.word_perplexity,
        "byte_perplexity": rolling.byte_perplexity,
        "bits_per_byte": rolling.bits_per_byte,
        "effective_ratio": record.effective_ratio,
        "retained_k": record.retained_k,
        "retained_v": record.retained_v,
        "length": record.length,
    }


def _against(folder: Path, base: PerplexityRecord, own: PerplexityRecord) -> Cell:
    """How many times the perplexity of the whole decoder, with an interval over the same windows.

    Raises:
        RunError: the two scored different texts.
    """
    refuse_other_text(base, own)
    pairs = [[row for row in read_parquet(folder / file_name(one.cell)) if row["definition"] == DISJOINT]
             for one in (base, own)]  # fmt: skip
    differences = [(b["nll"] - a["nll"]) / a["scored"] for a, b in zip(*pairs, strict=True)]
    interval = t_interval(differences)
    return {
        "ratio_of_baseline": math.exp(own.nll_nat_per_token - base.nll_nat_per_token),
        "ratio_95": [math.exp(end) for end in interval] if interval else None,
    }


def refuse_other_text(one: PerplexityRecord, other: PerplexityRecord) -> None:
    """Perplexities of different texts, or of different tokens of a text, say nothing of each other.

    Raises:
        RunError: they are; both hashes are named.
    """
    for name in ("text_sha256", "tokens_sha256"):
        if getattr(one, name) != getattr(other, name):
            raise RunError(
                f"{one.cell} and {other.cell} cannot be compared: {name} is {getattr(one, name)} and "
                f"{getattr(other, name)}"
            )


def _doubts(cell: Cell) -> list[str]:
    said = []
    if cell.get("ratio_of_baseline") and cell["ratio_95"] is None:
        said.append(f"{cell['chunks']} windows: too few for an interval; {MIN_REPETITIONS} are needed")
    return said
