"""The tables of a profile: what bounds each cell, operators, layers, requests, memory, and what was paid for it."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from distilbench.report.tables import milliseconds

MOST = 10  # rows of a table of operators
DASH = "–"
Row = dict[str, Any]


def verdicts(rows: list[Row]) -> pd.DataFrame:
    """One row per cell: its time without a profiler, and what bounds it, as text."""
    return pd.DataFrame(
        {
            **_names(row, rows),
            "forward (ms)": _ms(row.get("forward_ms")),
            "bound": (row.get("verdict") or DASH).removesuffix("-bound"),
            "dispatch": _share(row.get("dispatch_share")),
            "memory": _share(row.get("memory_share")),
            "arithmetic": _share(row.get("compute_share")),
            "FLOP/B": _number(row.get("intensity_FLOP_per_B"), ".1f"),
            "of peak FLOP/s": _share(row.get("compute_ceiling_share")),
            "of peak B/s": _share(row.get("memory_ceiling_share")),
            "profiler slows by": _number(row.get("slow_down"), ".2f", "×"),
            "state": row["state"],
        }
        for row in rows
    )


def operators(rows: list[Row], by: str = "self_ms") -> pd.DataFrame:
    """The first operators of each cell, by their own time (`self_ms`) or by what they allocate (`allocated_MiB`)."""
    found = []
    for row in measured(rows):
        ordered = sorted(row["operators"], key=lambda operator: -operator[by])[:MOST]
        whole_ms = sum(operator["self_ms"] for operator in row["operators"])
        found += [
            {
                **_names(row, rows),
                "operator": one["operator"],
                "calls": _number(one["calls"], ".4g"),
                "own time, profiled (ms)": f"{one['self_ms']:.3f}",
                "share": _share(one["self_ms"] / whole_ms if whole_ms else None),
                "GFLOP": f"{one['flops'] / 1e9:.4g}",
                "moved (MiB)": f"{one['bytes'] / 2**20:.4g}",
                "allocated (MiB)": f"{one['allocated_MiB']:.4g}",
            }
            for one in ordered
            if one[by]
        ]
    return pd.DataFrame(found)


def layers(rows: list[Row]) -> pd.DataFrame:
    """The time of each layer; the last row of a cell says how its sum compares with a whole forward."""
    found = []
    for row in measured(rows):
        total = sum(layer["ms"] for layer in row["layers"])
        found += [
            {
                **_names(row, rows),
                "layer": one["layer"],
                "time (ms)": f"{one['ms']:.3f}",
                "share": _share(one["ms"] / total),
            }
            for one in row["layers"]
        ]
        whole = f"sum; a whole forward takes {milliseconds(row['forward_ms'])} ms"
        found.append(
            {
                **_names(row, rows),
                "layer": whole,
                "time (ms)": f"{total:.3f}",
                "share": f"{row['layers_ratio']:.1%} of it",
            }
        )
    return pd.DataFrame(found)


def alike_layers(rows: list[Row]) -> pd.DataFrame:
    """The same with a row for all layers whose names differ in a number only; a decoder has dozens."""
    found = []
    for row in measured(rows):
        groups: dict[str, list[float]] = {}
        for one in row["layers"]:
            groups.setdefault(re.sub(r"\d+", "N", one["layer"]), []).append(one["ms"])
        total = sum(map(sum, groups.values()))
        found += [
            {
                **_names(row, rows),
                "layer": name,
                "how many": str(len(times)),
                "time of each (ms)": _each(times),
                "share of all": _share(sum(times) / total),
                "sum of all against a whole forward": _number(row.get("layers_ratio"), ".1%"),
            }
            for name, times in groups.items()
        ]
    return pd.DataFrame(found)


def _each(times: list[float]) -> str:
    return f"{times[0]:.3f}" if len(times) == 1 else f"{min(times):.3f} to {max(times):.3f}"


def ends(rows: list[Row]) -> list[Row]:
    """The smallest and the largest batch size of each curve."""
    curves: dict[tuple, list[Row]] = {}
    for row in sorted(measured(rows), key=lambda row: row["batch_size"]):
        curves.setdefault((row.get("run_id"), row.get("variant"), row["length_policy"]), []).append(row)
    return [row for curve in curves.values() for row in (curve[0], curve[-1])[: len(curve)]]


def requests(rows: list[Row]) -> pd.DataFrame:
    """The parts of a request from text to label."""
    names = {
        "tokenise_ms": "tokenise (ms)",
        "transfer_ms": "move data (ms)",
        "forward_ms": "forward (ms)",
        "postprocess_ms": "post-process (ms)",
    }
    return pd.DataFrame(
        {**_names(row, rows), **{shown: f"{row['request'][name]:.3f}" for name, shown in names.items()}}
        for row in measured(rows)
        if row["request"]
    )


def memory(rows: list[Row]) -> pd.DataFrame:
    """The peak of results during a forward, and the operators whose results these were."""
    return pd.DataFrame(
        {
            **_names(row, rows),
            "peak (MiB)": _number(row.get("peak_MiB"), ".4g"),
            "made of": ", ".join(f"{one['operator']} {one['MiB']:.3g}" for one in row["peak_by"][:5]) or DASH,
        }
        for row in measured(rows)
    )


def machine_use(rows: list[Row]) -> pd.DataFrame:
    """Use of CPU and GPU while forwards follow each other, and the time to load the model."""
    found = []
    for row in measured(rows):
        used = row["utilisation"] or {}
        found.append(
            {
                **_names(row, rows),
                "CPU (cores)": _number(used.get("cpu_cores"), ".2f"),
                "GPU": _share(used.get("gpu_share")),
                "GPU memory": _share(used.get("gpu_memory_share")),
                "samples": str(used.get("samples", DASH)),
                "load (s)": _number(row.get("load_s"), ".2f"),
            }
        )
    return pd.DataFrame(found)


def measured(rows: list[Row]) -> list[Row]:
    """The rows that have numbers; a column of several runs has NaN where one of them has nothing."""
    return [row for row in rows if isinstance(row.get("operators"), list)]


def _names(row: Row, rows: list[Row]) -> Row:
    """What tells a cell from the others; the machine only where there are several."""
    names = {"length": row["length_policy"], "batch size": str(row["batch_size"])}
    several = len({other.get("machine") for other in rows}) > 1
    return {"machine": row["machine"], **names} if several else names


def _known(value: Any) -> bool:
    return value is not None and value == value


def _ms(value: float | None) -> str:
    return milliseconds(value) if _known(value) else DASH


def _share(value: float | None) -> str:
    return f"{value:.0%}" if _known(value) else DASH


def _number(value: float | None, form: str, unit: str = "") -> str:
    return f"{value:{form}}{unit}" if _known(value) else DASH
