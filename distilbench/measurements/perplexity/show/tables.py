"""The tables of perplexities: all four definitions, and what compression costs on each text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.measurements.perplexity.records import DEFINITIONS
from distilbench.report.tables import DASH, known, machine_column, number, with_ends

NAMES = {
    "baseline": "whole", "fisher": "principal, Fisher ranks", "uniform": "principal, uniform ranks",
    "plain": "plain SVD, uniform ranks",
}  # fmt: skip
Row = dict[str, Any]


def cells(rows: list[Row]) -> pd.DataFrame:
    """One row per cell, as text: against the whole decoder, and by the four definitions."""
    return pd.DataFrame(
        {
            **machine_column(row, rows),
            "text": row["text"],
            "keys and values": NAMES[row["form"]],
            "kept": number(row.get("effective_ratio"), ".3f"),
            **{name: number(row.get(f"{name}_perplexity"), ".3f") for name in DEFINITIONS},
            "bits per byte": number(row.get("bits_per_byte"), ".4f"),
            "times the whole one's": against(row),
            "state": row["state"],
        }
        for row in rows
    )


def against(row: Row) -> str:
    """How many times the perplexity of the whole decoder, by disjoint windows, with its interval."""
    return with_ends(row.get("ratio_of_baseline"), row.get("ratio_95"), ".3f")


def energies(rows: list[Row]) -> pd.DataFrame:
    """What each form keeps of keys and values over the calibration."""
    found = [
        {
            **machine_column(row, rows),
            "keys and values": NAMES[row["form"]],
            "asked for": f"{row['ratio']:g}",
            "kept": number(row.get("effective_ratio"), ".3f"),
            "energy of keys, lowest": number(row.get("retained_k"), ".4f"),
            "energy of values, lowest": number(row.get("retained_v"), ".4f"),
        }
        for row in rows
        if known(row.get("retained_k")) and row["text"] == rows[0]["text"]
    ]
    return pd.DataFrame(found or [{"keys and values": DASH, "why": "no compressed form was measured"}])
