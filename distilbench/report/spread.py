"""What stands beside a number: one notion of error, for tables, bars of plots, slides and prose.

A number is the median over the fresh processes of its cell. Beside it stands the interval of that median, from the k-th
lowest to the k-th highest of them (`stats.median_interval`; of up to eight processes their range), and below five
processes, which bear no interval, the range. Energy is measured in one process: there it is the range of its windows.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.stats import MIN_REPETITIONS, median_level, median_rank

NTH = {1: "", 2: "second ", 3: "third "}


def ends(row: dict[str, Any], name: str) -> list[float] | None:
    """Low and high end of what stands beside a number of a cell; None where it was not measured."""
    found = (row.get(f"{name}_{kind}") for kind in ("interval_of_median", "range"))
    return next((pair for pair in found if isinstance(pair, list)), None)


def in_words(table: pd.DataFrame, name: str) -> str:
    """What the ends are, for a caption; "" where no cell has them.

    Args:
        table: as `load.table` gives it.
        name: the column of the number.
    """
    rows = [row for row in table.to_dict("records") if ends(row, name)]
    counts = sorted({_count(row, name) for row in rows} - {0})
    if not counts:
        return ""
    held = "" if name.startswith("energy") else _holds(counts)
    return f"{reach(table, name)} of {count_in_words(table, name)}{held}"


def reach(table: pd.DataFrame, name: str) -> str:
    """From where to where the ends reach, without of how many; "" where no cell has them."""
    ranks = {_rank(row, name) for row in table.to_dict("records") if ends(row, name)}
    if len(ranks) > 1:
        return "over the interval of the median"
    nth = [NTH.get(rank, f"{rank}th ") for rank in ranks]
    return "".join(f"from the {which}lowest to the {which}highest" for which in nth)


def count_in_words(table: pd.DataFrame, name: str) -> str:
    """How many processes (of energy: windows) a number is over; "" where no cell has it."""
    counts = sorted({_count(row, name) for row in table.to_dict("records")} - {0})
    if not counts:
        return ""
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if name.startswith("energy"):
        return f"{n} window{'s' if counts[-1] > 1 else ''} of one process per cell"
    forked = not name.startswith("peak") and "forked" in {row.get("start") for row in table.to_dict("records")}
    return f"{n} {'forked' if forked else 'fresh'} process{'es' if counts[-1] > 1 else ''} per cell"


def _holds(counts: list[int]) -> str:
    """How sure that is: told for what every cell can claim."""
    if counts[0] < MIN_REPETITIONS:
        return ", too few for an interval"
    level = min(median_level(n) for n in range(counts[0], counts[-1] + 1))
    return f", which holds the median of all such processes in {level:.1%} of cases"


def _count(row: dict[str, Any], name: str) -> int:
    found = row.get("energy_windows" if name.startswith("energy") else f"{name}_repetitions")
    return int(found) if pd.notna(found) else 0


def _rank(row: dict[str, Any], name: str) -> int:
    return median_rank(_count(row, name)) if isinstance(row.get(f"{name}_interval_of_median"), list) else 1
