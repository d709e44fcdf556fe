"""The tables of the cells, with the doubts beside the numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.measurements.sweep.summary.doubts import NOT_TESTED
from distilbench.report import spread
from distilbench.report.tables import milliseconds
from distilbench.runs.parameters import PROFILES
from distilbench.stats import MIN_REPETITIONS

COLUMNS = {
    "variant": "variant",
    "length_policy": "length",
    "batch_size": "batch size",
    "latency_ms": "latency (ms)",
    "throughput_samples_per_s": "samples/s",
    "throughput_steady_samples_per_s": "samples/s, queued",
    "peak_rss_MiB": "peak memory (MiB)",
    "peak_cuda_allocated_MiB": "peak GPU memory (MiB)",
    "padding_share": "padding",
    "truncated_share": "cut",
    "accuracy": "accuracy",
    "state": "state",
}


def cells(summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell; numbers are medians over repetitions, as text, with what was not measured as a dash."""
    rows = [{shown: _number(name, cell.get(name)) for name, shown in COLUMNS.items()} for cell in summary["cells"]]
    table = pd.DataFrame(rows)
    names = ("throughput_steady_samples_per_s", "peak_cuda_allocated_MiB", "padding_share", "truncated_share")
    not_always = (COLUMNS[name] for name in names)
    return table.drop(columns=[column for column in not_always if (table[column] == "–").all()])


def _number(name: str, value: Any) -> str:
    if value is None or value != value:  # a column of several runs has NaN where one of them has nothing
        return "–"
    if name.endswith("_share"):
        return f"{value:.{1 if name == 'truncated_share' else 0}%}"
    if name == "latency_ms":
        return milliseconds(value)
    digits = {"throughput_samples_per_s": 1, "throughput_steady_samples_per_s": 1, "accuracy": 3}.get(name, 0)
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """As `cells`, of several runs (rows as `load.table` gives them), with what stands beside the latency (`spread`).

    Machine and variant are shown where they vary, states where one is not ok.
    """
    rows = table.to_dict("records")
    shown = cells({"cells": rows})
    shown.insert(4, "from–to (ms)", [_range(spread.ends(row, "latency_ms")) for row in rows])
    if table["machine"].nunique() > 1:
        shown.insert(0, "machine", table["machine"])
    untold = [
        name for name, usual in (("variant", shown["variant"][0]), ("state", "ok")) if (shown[name] == usual).all()
    ]
    return shown.drop(columns=untold)


def measured_caption(table: pd.DataFrame) -> str:
    """What the numbers of `measured` are, and what stands beside the latency."""
    beside, memory = spread.in_words(table, "latency_ms"), spread.count_in_words(table, "peak_memory_MiB")
    said = [f"Medians. From–to reaches {beside}" if beside else "Nothing was timed"]
    said += [f"Memory: {memory}"] if memory else []
    if counted := sorted(set(table.get("truncated_of", pd.Series(dtype=str)).dropna())):
        said.append(f"Cut: share of the sentences {' or '.join(counted)}")
    if any(NOT_TESTED in doubts_ for doubts_ in table.get("doubts", [])):
        said.append(NOT_TESTED.capitalize())
    return ". ".join(said)


def _range(ends: Any) -> str:
    return f"{milliseconds(ends[0])}–{milliseconds(ends[1])}" if isinstance(ends, list) else "–"


def efficiency(rows: pd.DataFrame) -> pd.DataFrame:
    """Efficiency against linear scaling, batch sizes across; the machine only where it varies."""
    if rows.empty:
        return pd.DataFrame({"efficiency": ["no cell at fixed length"]})
    texts = [f"{value:.2f}{said}" for value, said in zip(rows["efficiency"], rows["mark"], strict=True)]
    keys = ["machine", "variant", "length_policy"]
    wide = rows.assign(shown=texts).pivot(index=keys, columns="batch_size", values="shown")
    shown = wide.fillna("–").reset_index()
    shown = shown.rename(columns={"length_policy": "length"}).rename_axis(columns=None)
    return shown if rows["machine"].nunique() > 1 else shown.drop(columns="machine")


def _length(policy: str) -> str:
    return (
        "with padding to the longest of each batch" if policy == "longest" else f"at {policy[6:]} tokens per sentence"
    )


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    best = summary["best_throughput"]
    if best is None:
        return "Nothing was measured."
    text = (
        f"Highest throughput {_length(best['length_policy'])}: batch size {best['batch_size']} with "
        f"{best['throughput_samples_per_s']:.1f} samples/s ({best['variant']}"
        f"{', unstable' if best.get('state') == 'unstable' else ''})"
    )
    profile = PROFILES[summary["profile"]] if summary["profile"] != "full" else ""
    return f"{text}; {profile}." if profile else f"{text}."


def reservation(summary: dict[str, Any]) -> str:
    """What a run that is not for citation cannot say, in a sentence."""
    cells_ = summary["cells"]
    fewest = min((n for cell in cells_ if (n := cell.get("latency_ms_repetitions"))), default=0)
    why = [f"{fewest} process{'es' if fewest > 1 else ''} per cell give{'s' * (fewest == 1)} no interval"]
    why = why if 0 < fewest < MIN_REPETITIONS else []
    why += [NOT_TESTED] if any(NOT_TESTED in cell["doubts"] for cell in cells_) else []
    return f"This run cannot say how sure its numbers are{': ' if why else ''}{', and '.join(why)}."


def not_measured(summary: dict[str, Any]) -> list[str]:
    """What no cell of the run has, with the reason; one line per reason."""
    reasons: dict[str, list[str]] = {}
    for name in ("accuracy", "latency_ms", "latency_device_ms", "peak_rss_MiB", "peak_cuda_allocated_MiB", "energy_J"):
        if all(cell.get(name) is None for cell in summary["cells"]):
            reasons.setdefault(summary["cells"][0].get(f"{name}_reason") or "not measured", []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def doubts(summary: dict[str, Any]) -> list[str]:
    """All doubts of all cells; one that every cell has is said once, and so is one of every cell of a length policy."""
    cells_ = summary["cells"]
    everywhere = _shared(cells_)
    policies = {
        cell["length_policy"]: [c for c in cells_ if c["length_policy"] == cell["length_policy"]] for cell in cells_
    }
    of_policy = {policy: _shared(mine) for policy, mine in policies.items() if len(mine) > 1}
    said = [f"every cell: {doubt}" for doubt in everywhere]
    said += [f"{at}: {doubt}" for at, found in of_policy.items() for doubt in found if doubt not in everywhere]
    for cell in cells_:
        told = {*everywhere, *of_policy.get(cell["length_policy"], [])}
        said += [f"{cell['cell']}: {doubt}" for doubt in cell["doubts"] if doubt not in told]
    return said


def _shared(cells_: list[dict[str, Any]]) -> list[str]:
    """The doubts that all of these cells have."""
    lists = [cell["doubts"] for cell in cells_]
    return [doubt for doubt in (lists[0] if lists else []) if all(doubt in others for others in lists)]
