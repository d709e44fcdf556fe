"""The tables of perplexities: all four definitions, and what compression costs on each text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.measurements.perplexity.records import DEFINITIONS

DASH = "–"
NAMES = {
    "baseline": "whole", "fisher": "principal, Fisher ranks", "uniform": "principal, uniform ranks",
    "plain": "plain SVD, uniform ranks",
}  # fmt: skip
Row = dict[str, Any]


def cells(rows: list[Row]) -> pd.DataFrame:
    """One row per cell, as text: against the whole decoder, and by the four definitions."""
    return pd.DataFrame(
        {
            **_machine(row, rows),
            "text": row["text"],
            "keys and values": NAMES[row["form"]],
            "kept": _number(row.get("effective_ratio"), ".3f"),
            **{name: _number(row.get(f"{name}_perplexity"), ".3f") for name in DEFINITIONS},
            "bits per byte": _number(row.get("bits_per_byte"), ".4f"),
            "times the whole one's": against(row),
            "state": row["state"],
        }
        for row in rows
    )


def against(row: Row) -> str:
    """How many times the perplexity of the whole decoder, by disjoint windows, with its interval."""
    if not known(row.get("ratio_of_baseline")):
        return DASH
    ends, said = row.get("ratio_95"), f"{row['ratio_of_baseline']:.3f}"
    return f"{said} ({ends[0]:.3f} to {ends[1]:.3f})" if isinstance(ends, list) else said


def energies(rows: list[Row]) -> pd.DataFrame:
    """What each form keeps of keys and values over the calibration."""
    found = [
        {
            **_machine(row, rows),
            "keys and values": NAMES[row["form"]],
            "asked for": f"{row['ratio']:g}",
            "kept": _number(row.get("effective_ratio"), ".3f"),
            "energy of keys, lowest": _number(row.get("retained_k"), ".4f"),
            "energy of values, lowest": _number(row.get("retained_v"), ".4f"),
        }
        for row in rows
        if known(row.get("retained_k")) and row["text"] == rows[0]["text"]
    ]
    return pd.DataFrame(found or [{"keys and values": DASH, "why": "no compressed form was measured"}])


def known(value: Any) -> bool:
    """Whether there is a value: neither None nor NaN."""
    return value is not None and value == value


def _number(value: Any, form: str) -> str:
    return f"{value:{form}}" if known(value) else DASH


def _machine(row: Row, rows: list[Row]) -> Row:
    """The machine, where there are several."""
    several = len({other.get("machine") for other in rows}) > 1
    return {"machine": row["machine"]} if several else {}
