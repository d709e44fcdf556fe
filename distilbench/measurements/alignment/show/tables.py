"""The tables of dimension alignment: what rounding up costs and gives, and single dimensions against the next block."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.report.tables import DASH, machine_column, number, with_ends

Row = dict[str, Any]
NAMES = {"down": "to a latent", "up": "back from a latent", "attention": "attention"}


def rounding(rows: list[Row]) -> pd.DataFrame:
    """One row per operation and block."""
    found = [
        {
            **machine_column(row, rows),
            "operation": NAMES[row["operation"]],
            "rounded up to": f"multiples of {one['block']}",
            "dimensions": str(len(one["pairs"])),
            "times the memory": number(one["memory_ratio"], ".3f"),
            "times the time": number(one["time_ratio"], ".3f"),
            "larger one faster": f"{one['faster']} of {len(one['pairs'])}",
            "… for sure": str(one["surely_faster"]),
            "state": row["state"],
        }
        for row in rows
        for one in row["rounded"]
    ]
    return pd.DataFrame(found or [{"operation": DASH, "why": "nothing was measured"}])


def largest(rows: list[Row], most: int = 5) -> pd.DataFrame:
    """Of each operation the dimensions that gain most by rounding up to any block."""
    found = []
    for row in rows:
        pairs = [pair | {"block": one["block"]} for one in row["rounded"] for pair in one["pairs"]]
        nearest = {}  # 65 and 72 is a pair of the blocks 8 and, for 104, of others: each pair of dimensions once
        for pair in sorted(pairs, key=lambda pair: pair["time_ratio"]):
            nearest.setdefault((pair["dimension"], pair["rounded_to"]), pair)
        found += [
            {
                **machine_column(row, rows),
                "operation": NAMES[row["operation"]],
                "dimension": str(pair["dimension"]),
                "rounded up to": str(pair["rounded_to"]),
                "times the memory": number(pair["memory_ratio"], ".3f"),
                "times the time": with_ends(pair["time_ratio"], pair["time_ratio_95"], ".3f"),
            }
            for pair in list(nearest.values())[:most]
        ]
    return pd.DataFrame(found or [{"operation": DASH, "why": "nothing was measured"}])
