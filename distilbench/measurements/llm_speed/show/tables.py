"""The tables of decoders: what each point takes, what compression changes there, and what was compressed how."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.lowrank.params import BASELINE
from distilbench.measurements.llm_speed.records import DECODE, PREFILL
from distilbench.report.tables import DASH, known, machine_column, milliseconds, number, with_ends

MiB = 2**20
Row = dict[str, Any]


def cells(rows: list[Row]) -> pd.DataFrame:
    """One row per cell, as text."""
    return pd.DataFrame(
        {
            **machine_column(row, rows),
            "variant": row["variant"],
            "phase": row["phase"],
            "batch": str(row["batch_size"]),
            "context": str(row["context"]),
            "new tokens": str(row["new_tokens"] or DASH),
            "latency (ms)": _with_ends(row, "latency"),
            "to first token (ms)": _with_ends(row, "ttft"),
            "per token (ms)": _with_ends(row, "tpot"),
            "tokens/s": f"{row['tokens_per_s']:,.1f}" if known(row.get("tokens_per_s")) else DASH,
            "cache (MiB)": f"{row['cache_bytes'] / MiB:,.1f}" if known(row.get("cache_bytes")) else DASH,
            "state": row["state"],
        }
        for row in rows
    )


def prefill(rows: list[Row]) -> pd.DataFrame:
    """What reading a prompt takes with both variants, point by point."""
    return _pairs(rows, PREFILL, {"latency": "latency"})


def decode(rows: list[Row]) -> pd.DataFrame:
    """What writing takes with both variants, point by point."""
    return _pairs(rows, DECODE, {"ttft": "to first token", "tpot": "per token"})


def _pairs(rows: list[Row], phase: str, times: dict[str, str]) -> pd.DataFrame:
    names = ("machine", "batch_size", "context", "new_tokens")
    own = [row for row in rows if row["phase"] == phase]
    base = {tuple(row.get(name) for name in names): row for row in own if row["variant"] == BASELINE}
    several = len({row["variant"] for row in own} - {BASELINE}) > 1
    found = [
        {
            **machine_column(row, rows),
            **({"variant": row["variant"]} if several else {}),
            "batch": str(row["batch_size"]),
            "context": str(row["context"]),
            **({"new tokens": str(row["new_tokens"])} if phase == DECODE else {}),
            **_compared(base[tuple(row.get(name) for name in names)], row, times),
            "cache, of the baseline's": number(row.get("cache_ratio"), ".3f"),
        }
        for row in own
        if row["variant"] != BASELINE and tuple(row.get(name) for name in names) in base
    ]
    return pd.DataFrame(found or [{"batch": DASH, "why": "the two variants were not measured at the same points"}])


def _compared(base: Row, own: Row, times: dict[str, str]) -> Row:
    found = {}
    for stem, what in times.items():
        found[f"{what}, baseline (ms)"] = _time(base.get(f"{stem}_ms"))
        found[f"{what}, compressed (ms)"] = _time(own.get(f"{stem}_ms"))
        found[f"{what}, times as long"] = ratio(own, stem)
    return found


def ratio(row: Row, stem: str) -> str:
    """How many times as long as the baseline, with an interval, or the range of the trials in square brackets."""
    if not known(row.get(f"{stem}_ratio")):
        return DASH
    ends, seen = row.get(f"{stem}_ratio_95"), row.get(f"{stem}_ratio_range")
    said = with_ends(row[f"{stem}_ratio"], ends, ".2f")
    if isinstance(ends, list) or not isinstance(seen, list) or seen[0] == seen[1]:
        return said
    return f"{said} [{seen[0]:.2f} to {seen[1]:.2f}]"


def tails(rows: list[Row]) -> pd.DataFrame:
    """Mean, spread and percentiles over all timed iterations of a cell."""
    return pd.DataFrame(
        {
            **machine_column(row, rows),
            "cell": row["cell"],
            "iterations": str(int(row["iterations"])),
            "mean (ms)": _time(row["latency_mean_ms"]),
            "std (ms)": _time(row["latency_std_ms"]),
            **{f"p{p} (ms)": _time(row[f"latency_p{p}_ms"]) for p in (50, 90)},
            "p99 (ms)": _time(row["latency_p99_ms"]) + ("" if row["p99_supported"] else " too few"),
            "memory, highest (MiB)": f"{row['peak_rss_MiB']:,.0f}",
            "GPU memory, allocated (MiB)": number(row.get("peak_cuda_allocated_MiB"), ",.0f"),
        }
        for row in rows
        if known(row.get("iterations"))
    )


def compression(run_name: str, content: Row | None) -> pd.DataFrame:
    """How keys and values were compressed."""
    if not content:
        return pd.DataFrame([{"what": "compression", run_name: "none: the baseline alone was measured"}])
    proof, kept, source = content["proof"], content["retained"], content["calibrated_on"]
    found = content["rank_file"]
    said = {
        "group size": (
            f"{content['group_size']} key-value heads, {content['groups']} groups of {content['group_width']}"
        ),
        "fraction asked for": number(content["requested"], ".3f"),
        "fraction kept (effective)": f"{content['effective']:.4f}",
        "ranks": f"{content['search']}, multiples of {content['block']}, " + _span(content["ranks"]),
        "rank file": f"{found['folder']}: {found['why']}" if found else "none: ranks were found in this run",
        "calibrated on": (
            f"{source['name']}: {source['windows']} windows of {source['length']} tokens" if source else DASH
        ),
        "energy kept, lowest of any group": (
            f"keys {kept['k_proj']:.4f}, values {kept['v_proj']:.4f}" if kept else "not known: factors came from a file"
        ),
        "a cached token at each step and layer": _cost(content["cost"]),
        "proof": f"{proof['new_tokens']} tokens written; a cache of {proof['cache_bytes']:,} bytes, as the ranks give",
    }
    return pd.DataFrame({"what": name, run_name: value} for name, value in said.items())


def _cost(cost: Row) -> str:
    ratio = cost["ratio"]
    return (
        f"by arithmetic {cost['palu']['macs']:,.0f} multiplications instead of {cost['baseline']['macs']:,.0f} "
        f"({ratio['macs']:.1f} times), {cost['palu']['bytes']:,.0f} bytes moved instead of "
        f"{cost['baseline']['bytes']:,.0f} ({ratio['bytes']:.2f} times)"
    )


def _span(ranks: dict[str, list[int]]) -> str:
    spans = []
    for kind, name in (("k_proj", "keys"), ("v_proj", "values")):
        own = [rank for projection, given in ranks.items() if projection.endswith(kind) for rank in given]
        spans.append(f"{name} {min(own)} to {max(own)}" if min(own) < max(own) else f"{name} {own[0]}")
    return ", ".join(spans)


def _time(value: Any) -> str:
    return milliseconds(value) if known(value) else DASH


def _with_ends(row: Row, stem: str) -> str:
    ends, said = row.get(f"{stem}_95_ms"), _time(row.get(f"{stem}_ms"))
    return f"{said} ({milliseconds(ends[0])} to {milliseconds(ends[1])})" if isinstance(ends, list) else said
