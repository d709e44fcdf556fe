"""The tables of task scores: what each variant answers, and the two against each other."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.report.tables import DASH, known, machine_column, number, with_ends

Row = dict[str, Any]
NAMES = {"baseline": "whole", "palu": "compressed", "palu-v": "values compressed"}


def cells(rows: list[Row]) -> pd.DataFrame:
    """One row per cell, as text."""
    return pd.DataFrame(
        {
            **machine_column(row, rows),
            "task": row["task"],
            "examples": str(row["shots"]),
            "keys and values": NAMES[row["variant"]],
            "questions": number(row.get("documents"), ".0f"),
            "accuracy": with_ends(row.get("accuracy"), row.get("accuracy_95"), ".3f"),
            "per character": number(row.get("accuracy_norm"), ".3f"),
            "guessing": number(row.get("chance"), ".2f"),
            "margin (nat)": number(row.get("margin_nat"), ".3f"),
            "state": row["state"],
        }
        for row in rows
    )


def differences(rows: list[Row]) -> pd.DataFrame:
    """What compression changes, question by question."""
    found = [
        {
            **machine_column(row, rows),
            "task": row["task"],
            "examples": str(row["shots"]),
            "accuracy": with_ends(row["accuracy_difference"], row["accuracy_difference_95"], "+.3f"),
            "lost": number(row["lost"], ".0f"),
            "won": number(row["won"], ".0f"),
            "McNemar's p": number(row["mcnemar_p"], ".2g"),
            "difference that would show": number(row["visible"], ".3f"),
            "margin (nat)": with_ends(row["margin_difference_nat"], row["margin_difference_95"], "+.3f"),
        }
        for row in rows
        if known(row.get("accuracy_difference"))
    ]
    return pd.DataFrame(found or [{"task": DASH, "why": "the two variants were not both measured"}])


def checks(rows: list[Row]) -> pd.DataFrame:
    """How far a scorer of our own agrees."""
    found = [
        {
            **machine_column(row, rows),
            "task": row["task"],
            "examples": str(row["shots"]),
            "keys and values": NAMES[row["variant"]],
            "questions": number(row["checked"], ".0f"),
            "largest difference (nat)": number(row["own_difference_nat"], ".1e"),
            "other texts": number(row["own_disagreed"], ".0f"),
        }
        for row in rows
        if known(row.get("checked"))
    ]
    return pd.DataFrame(found or [{"task": DASH, "why": "nothing was measured"}])
