"""The tables of an evaluation: quality, classes, what is confused with what, and times."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.progress import duration

MOST = 10  # pairs of classes that are confused
DASH = "–"
Row = dict[str, Any]


def results(rows: list[Row]) -> pd.DataFrame:
    """One row per cell: quality and rate, as text."""
    return pd.DataFrame(
        {
            **_names(row, rows),
            "rows": _count(row.get("rows")),
            "left out": _count(row.get("rows_damaged")),
            "accuracy": _number(row.get("accuracy"), ".4f"),
            "95 % interval": interval(row.get("accuracy_wilson_95")),
            "macro F1": _number(row.get("macro_f1"), ".4f"),
            "weighted F1": _number(row.get("weighted_f1"), ".4f"),
            "samples/s": _number(row.get("throughput_samples_per_s"), ".1f"),
            "state": row["state"],
        }
        for row in rows
    )


def per_class(rows: list[Row]) -> pd.DataFrame:
    """Precision, recall and F1 of each class; the reason where there is none."""
    found = [
        {
            **_names(row, rows),
            "class": one["label"],
            "rows": _count(one["support"]),
            "predicted": _count(one["predicted"]),
            "precision": _number(one["precision"], ".4f"),
            "recall": _number(one["recall"], ".4f"),
            "F1": _number(one["f1"], ".4f"),
        }
        for row in classified(rows)
        for one in row["per_class"]
    ]
    return pd.DataFrame(found or [{"class": DASH, "why": reason(rows)}])


def confused(rows: list[Row]) -> pd.DataFrame:
    """The pairs of classes that are confused most; the reason where there is none."""
    found = []
    for row in classified(rows):
        support = {one["label"]: one["support"] for one in row["per_class"]}
        pairs = [
            (count, true, predicted)
            for true, counts in row["confusion"].items()
            for predicted, count in counts.items()
            if count and true != predicted
        ]
        found += [
            {
                **_names(row, rows),
                "true class": true,
                "predicted as": predicted,
                "rows": _count(count),
                "of its class": f"{count / support[true]:.1%}",
            }
            for count, true, predicted in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:MOST]
        ]
    why = "no class is confused with another" if classified(rows) else reason(rows)
    return pd.DataFrame(found or [{"true class": DASH, "why": why}])


def times(rows: list[Row]) -> pd.DataFrame:
    """What the whole data set took, and how its forwards are spread."""
    found = []
    for row in evaluated(rows):
        spread = row["batch_times_ms"]
        found.append(
            {
                **_names(row, rows),
                "total": duration(row["total_s"]),
                "by the clock": duration(row["elapsed_s"]),
                "in forwards": f"{row['forward_s'] / row['total_s']:.0%}",
                "in tokenising": f"{row['tokenise_s'] / row['total_s']:.0%}",
                "batches/s": _number(row["throughput_batches_per_s"], ".2f"),
                "batch p50 (ms)": _number(spread["p50"], ".2f"),
                "p95 (ms)": _number(spread["p95"], ".2f"),
                "p99 (ms)": _number(spread["p99"], ".2f"),
                "padding": f"{row['padding_share']:.0%}",
                "peak memory (MiB)": _number(row["peak_rss_MiB"], ".0f"),
                "processes": str(row["processes"]),
            }
        )
    return pd.DataFrame(found or [{"total": DASH, "why": reason(rows)}])


def evaluated(rows: list[Row]) -> list[Row]:
    """The rows that have numbers; a column of several runs has NaN where one of them has nothing."""
    return [row for row in rows if isinstance(row.get("batch_times_ms"), dict)]


def classified(rows: list[Row]) -> list[Row]:
    """Of these, the ones with an accuracy: not those of random weights."""
    return [row for row in evaluated(rows) if isinstance(row.get("confusion"), dict)]


def reason(rows: list[Row]) -> str:
    """Why nothing is known by class."""
    said = {str(row.get("accuracy_reason") or f"not measured ({row['state']})") for row in rows}
    return "; ".join(sorted(said))


def interval(ends: Any) -> str:
    """Both ends of an interval."""
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if isinstance(ends, list) else DASH


def name_of(row: Row, rows: list[Row]) -> str:
    """What tells a cell from the others, in words."""
    return ", ".join(f"{name} {said}" if said.isdigit() else said for name, said in _names(row, rows).items())


def _names(row: Row, rows: list[Row]) -> Row:
    """What tells a cell from the others; machine and variant only where there are several."""
    names = {"length": row["length_policy"], "batch size": str(row["batch_size"])}
    for name in ("variant", "machine"):
        if len({other.get(name) for other in rows}) > 1:
            names = {name: row[name]} | names
    return names


def _known(value: Any) -> bool:
    return value is not None and value == value


def _count(value: float | None) -> str:
    return f"{int(value):,}" if _known(value) else DASH


def _number(value: float | None, form: str) -> str:
    return f"{value:{form}}" if _known(value) else DASH
