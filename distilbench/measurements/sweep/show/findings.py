"""What the numbers say: best batch sizes, where scaling stops, efficiency, padding, crossover."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd

from distilbench.measurements.sweep.show import lengths

WORTH = 0.05  # scaling has stopped where no larger batch size has this much more throughput
LOWER_IS_BETTER = {"latency_ms": True, "throughput_samples_per_s": False, "energy_per_sample_J": True}
SHOWN_AS = {
    "latency_ms": "latency",
    "throughput_samples_per_s": "throughput",
    "energy_per_sample_J": "energy per sample",
}


def series(table: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The curves of a table: one per machine, variant and length policy, ordered by batch size; measured cells only."""
    measured = table[table["throughput_samples_per_s"].notna()]
    keys = ["machine", "variant", "length_policy"]
    return [
        (dict(zip(keys, names, strict=True)), rows.sort_values("batch_size", ignore_index=True))
        for names, rows in measured.groupby(keys, sort=True)
    ]


def best(rows: pd.DataFrame) -> dict[str, Any]:
    """Of one curve: the batch sizes with the highest throughput and the lowest latency, and where scaling stops.

    Returns:
        throughput_batch_size, throughput_samples_per_s, latency_batch_size, latency_ms, and saturated_batch_size: the
        smallest batch size that no other exceeds by 5 % in throughput (a larger one costs latency and memory for
        less). `throughput_mark`, `latency_mark` and `saturated_mark` say where these cells are unstable.
    """
    fastest = rows.loc[rows["throughput_samples_per_s"].idxmax()]
    soonest = rows.loc[rows["latency_ms"].idxmin()]
    enough = rows[rows["throughput_samples_per_s"] >= fastest["throughput_samples_per_s"] / (1 + WORTH)]
    first = enough.loc[enough["batch_size"].idxmin()]
    return {
        "throughput_batch_size": int(fastest["batch_size"]),
        "throughput_samples_per_s": float(fastest["throughput_samples_per_s"]),
        "latency_batch_size": int(soonest["batch_size"]),
        "latency_ms": float(soonest["latency_ms"]),
        "saturated_batch_size": int(first["batch_size"]),
        "throughput_mark": mark(fastest.get("state")),
        "latency_mark": mark(soonest.get("state")),
        "saturated_mark": mark(first.get("state")),
    }


def mark(state: str | None) -> str:
    """What stands behind a number of an unstable cell, wherever one is shown alone."""
    return " (unstable)" if state == "unstable" else ""


def efficiency(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one curve at fixed length: throughput against that of the smallest batch size times the ratio of sizes.

    1 is linear scaling. At `longest` the work per sentence changes with the batch size, so there is no such number.
    """
    first = rows.iloc[0]
    linear = first["throughput_samples_per_s"] * rows["batch_size"] / first["batch_size"]
    found = pd.DataFrame({"batch_size": rows["batch_size"], "efficiency": rows["throughput_samples_per_s"] / linear})
    states = rows["state"] if "state" in rows else pd.Series([None] * len(rows), index=rows.index)
    return found.assign(mark=[mark(first.get("state")) or mark(state) for state in states])


def efficiencies(table: pd.DataFrame) -> pd.DataFrame:
    """Efficiency of every curve at fixed length, long form."""
    parts = [efficiency(rows).assign(**names) for names, rows in series(table) if names["length_policy"] != "longest"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["batch_size", "efficiency"])


def crossover(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> dict[str, Any]:
    """From which batch size on the other curve is better than the one, over the batch sizes that both have.

    Returns:
        `batch_size`: the smallest from which on the winner changes and stays changed; None when it does not change
        within the measured range. `winner_first`, `winner_last`: "one" or "other" at both ends.
    """
    nowhere = {"batch_size": None, "winner_first": None, "winner_last": None}
    if metric not in one or metric not in other:
        return nowhere
    both = one.merge(other, on="batch_size", suffixes=("_one", "_other")).sort_values("batch_size")
    both = both[both[f"{metric}_one"].notna() & both[f"{metric}_other"].notna()]
    if both.empty:
        return nowhere
    lower = both[f"{metric}_other"] < both[f"{metric}_one"]
    other_wins = (lower if LOWER_IS_BETTER[metric] else ~lower).tolist()
    winners = ["other" if wins else "one" for wins in other_wins]
    last = winners[-1]
    since = next(i for i in range(len(winners)) if all(w == last for w in winners[i:]))
    return {
        "batch_size": int(both["batch_size"].iloc[since]) if since else None,
        "winner_first": winners[0],
        "winner_last": last,
    }


def sentences(table: pd.DataFrame) -> list[str]:
    """The findings in words, one sentence each; numbers are those of the run, rounded to three digits.

    Machine and variant are named where they vary.
    """
    several = [key for key in ("machine", "variant") if table[key].nunique() > 1]
    found = []
    for names, rows in series(table):
        if len(rows) > 1:
            where = ", ".join(names[key] for key in (*several, "length_policy"))
            found += _curve_sentences(where, names["length_policy"], rows)
    cut = [f"{said}." for said in lengths.in_words(table)]
    return found + _padding_sentences(table) + cut + _crossover_sentences(table)


def _three_digits(value: float) -> str:
    """A number in three digits or as a whole one, never as a power of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _curve_sentences(where: str, length_policy: str, rows: pd.DataFrame) -> list[str]:
    top, sizes = best(rows), [int(size) for size in rows["batch_size"]]
    states = rows["state"] if "state" in rows else [None] * len(rows)
    at = {size: f"batch size {size}{mark(state)}" for size, state in zip(sizes, states, strict=True)}
    said = [
        f"{where}: highest throughput at {at[top['throughput_batch_size']]} with "
        f"{_three_digits(top['throughput_samples_per_s'])} samples/s, lowest latency at "
        f"{at[top['latency_batch_size']]} with {_three_digits(top['latency_ms'])} ms.",
        f"{where}: throughput still grows at the largest batch size measured."
        if top["saturated_batch_size"] == sizes[-1]
        else f"{where}: scaling stops at {at[top['saturated_batch_size']]}; "
        f"no larger one has {WORTH:.0%} more throughput.",
    ]
    if length_policy != "longest":
        last = efficiency(rows).iloc[-1]
        said.append(
            f"{where}: at {at[sizes[-1]]} throughput is {last['efficiency']:.0%} of what linear scaling from "
            f"{at[sizes[0]]} would give."
        )
    return said


def _padding_sentences(table: pd.DataFrame) -> list[str]:
    """How much of the computed positions is padding, per length policy, at the largest batch size."""
    if "padding_share" not in table:
        return []
    rows = table[table["padding_share"].notna()].sort_values("batch_size").groupby("length_policy").last()
    return [
        f"{policy}: {row['padding_share']:.0%} of the positions computed at batch size "
        f"{int(row['batch_size'])} are padding."
        for policy, row in rows.iterrows()
    ]


def _same_source(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Joules of a package, of a GPU's board and of a model are not the same joules."""
    if "energy_source" not in one:
        return False
    sources = {*one["energy_source"].dropna(), *other["energy_source"].dropna()}
    return len(sources) == 1 and sources != {"modelled"}


def _unstable(*curves: pd.DataFrame) -> str:
    """Which batch sizes of curves that are compared are unstable in one of them."""
    rows = pd.concat([curve for curve in curves if "state" in curve] or [pd.DataFrame({"state": []})])
    sizes = sorted({int(size) for size in rows.loc[rows["state"] == "unstable", "batch_size"]}) if len(rows) else []
    return f"; unstable at {', '.join(map(str, sizes))}" if sizes else ""


def _crossover_sentences(table: pd.DataFrame) -> list[str]:
    """Each pair of machines, per metric and curve that both have."""
    said = []
    for (one, rows_one), (other, rows_other) in combinations(series(table), 2):
        if one["machine"] == other["machine"] or one | {"machine": ""} != other | {"machine": ""}:
            continue
        machine = {"one": one["machine"], "other": other["machine"], None: ""}
        curve = f"({one['variant']}, {one['length_policy']}{_unstable(rows_one, rows_other)})"
        for metric, shown in SHOWN_AS.items():
            if metric.startswith("energy") and not _same_source(rows_one, rows_other):
                continue
            result = crossover(rows_one, rows_other, metric)
            first, last = machine[result["winner_first"]], machine[result["winner_last"]]
            if size := result["batch_size"]:
                said.append(f"{shown} {curve}: {last} is better from batch size {size} on, {first} at the smallest.")
            elif last:
                said.append(f"{shown} {curve}: {last} is better throughout: no crossover in the measured range.")
    return said
