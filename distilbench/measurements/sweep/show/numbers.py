"""The named numbers of a sweep: all that prose may take from a run."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from distilbench import simulated_traces
from distilbench.measurements.sweep.show import findings
from distilbench.report import load, spread
from distilbench.report.glue import Value
from distilbench.runs.folder import Run
from distilbench.stats import MIN_REPETITIONS

PER_CELL = (
    "latency_ms", "latency_request_ms", "throughput_samples_per_s", "peak_memory_MiB", "accuracy", "padding_share",
    "energy_per_sample_J",
)  # fmt: skip
WITH_ENDS = ("latency_ms", "throughput_samples_per_s")  # what `spread` says, as `<name>_low` and `<name>_high`
PARTS = {
    "request": ("tokenise_ms", "forward_ms"),
    "memory": ("loaded_rss_MiB", "delta_rss_MiB"),
    "roofline": ("fraction",),
}


def numbers(run: Run) -> dict[str, Value]:
    """Every number of a run that prose may name.

    Keys: `run_id`, `machine`, `torch`, ...; per curve `<variant>-<length>-best_throughput` and the like; per cell
    `<variant>-<length>-b<batch size>-latency_ms` and the like, with `mark` where it is to be said that the cell is
    unstable; per length policy the share of the sentences that it cuts. What was not measured has no key.
    """
    table = load.table([run])
    of_run = _about(run) | _of_the_intervals(run) | _of_the_machine(run)
    return of_run | _per_cell(table.to_dict("records")) | _per_curve(table) | _per_policy(table)


def _about(run: Run) -> dict[str, Value]:
    config, env = run.config, run.env
    model, data = run.model, run.data
    params, measured = config["parameters"], load.processes(run)
    return {
        "run_id": run.run_id,
        "measured_on": config["created"][:10],
        "machine": load.label(run),
        "model": model["name"],
        "model_source": model["source"],
        "model_parameters": model["parameters"],
        "text": data["name"],
        "sentences": data["rows"],
        "dtype": params["dtype"],
        "cells": sum(not cell.get("control_of") for cell in config["cells"]),
        "samples_per_cycle": params["samples_per_cycle"],
        **({"repetitions": measured["timing"]} if "timing" in measured else {}),
        **({"memory_repetitions": measured["memory"]} if "memory" in measured else {}),
        "processes": len(run.measured()),
        "batch_size_first": min(params["batch_sizes"]),
        "batch_size_last": max(params["batch_sizes"]),
        "torch": env["packages"]["torch"],
        "transformers": env["packages"]["transformers"],
        "python": env["python"]["version"],
        "code": (env["git"]["sha"] or "")[:12],
    }


def _of_the_intervals(run: Run) -> dict[str, Value]:
    """How often an interval of as many repetitions as the run has holds the truth, on simulated traces."""
    repetitions = run.config["parameters"]["repetitions"]
    if repetitions < MIN_REPETITIONS:
        return {}
    return {
        f"coverage_{kind.replace('-', '_')}": share for kind, share in simulated_traces.coverages(repetitions).items()
    }


def _of_the_machine(run: Run) -> dict[str, Value]:
    summary, found = run.summary, {}
    if (ceilings := summary.get("ceilings")) and "reason" not in ceilings:
        rates = ceilings["matrix_flops_per_s"].items()
        found |= {f"ceiling_{dtype}_GFLOP_per_s": rate / 1e9 for dtype, rate in rates}
        found["ceiling_memory_GB_per_s"] = ceilings["memory_bytes_per_s"] / 1e9
    if (control := summary.get("control")) and control["ratio_interval_95"]:
        low, high = control["ratio_interval_95"]
        found |= {"control_ratio": control["ratio"], "control_low": low, "control_high": high}
        found["control_verdict"] = control["verdict"]
    return found


def _per_cell(rows: list[dict[str, Any]]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    spreads: list[float] = []
    for row in rows:
        where = f"{row['variant']}-{row['length_policy']}-b{row['batch_size']}"
        found |= {f"{where}-{name}": row[name] for name in PER_CELL if pd.notna(row.get(name))}
        for part, names in PARTS.items():
            if isinstance(held := row.get(part), dict):
                found |= {f"{where}-{part}_{name}": held[name] for name in names if held[name] is not None}
        if isinstance(reach := row.get("latency_ms_range"), list):
            spreads.append(reach[1] / reach[0] - 1)
        found[f"{where}-mark"] = findings.mark(row["state"])
        for name in WITH_ENDS:
            if beside := spread.ends(row, name):
                found |= dict(zip((f"{where}-{name}_low", f"{where}-{name}_high"), beside, strict=True))
        if isinstance(held := row.get("iterations_ms"), dict) and (faults := held.get("page_faults")):
            found |= dict(zip((f"{where}-page_faults_low", f"{where}-page_faults_high"), faults, strict=True))
        if isinstance(interval := row.get("accuracy_wilson_95"), list):
            names = (f"{where}-accuracy_n", f"{where}-accuracy_low", f"{where}-accuracy_high")
            found |= dict(zip(names, (int(row["accuracy_n"]), *interval), strict=True))
    return found | ({"latency_spread_max": max(spreads)} if spreads else {})


def _per_curve(table: Any) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for names, rows in findings.series(table):
        where = f"{names['variant']}-{names['length_policy']}"
        found |= {f"{where}-best-{name}": value for name, value in findings.best(rows).items()}
        first = rows["throughput_samples_per_s"].iloc[0]
        found[f"{where}-gain"] = float(rows["throughput_samples_per_s"].max() / first)
        first_mark, last_mark = (findings.mark(rows["state"].iloc[at]) for at in (0, -1))
        found[f"{where}-gain_mark"] = first_mark or found[f"{where}-best-throughput_mark"]
        if names["length_policy"] != "longest":
            found[f"{where}-efficiency_last"] = float(findings.efficiency(rows)["efficiency"].iloc[-1])
            found[f"{where}-efficiency_mark"] = first_mark or last_mark
    return found


def _per_policy(table: Any) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for policy, rows in table[table["truncated_share"].notna()].groupby("length_policy"):
        found |= {f"{policy}-truncated_share": float(rows["truncated_share"].max())}
        found |= {f"{policy}-truncated_of": rows["truncated_of"].iloc[0]}
    return found


def mark_of(name: str) -> str | None:
    """Under which name it is said whether a number comes from an unstable cell; None: no process was timed for it."""
    if matched := re.fullmatch(r"(.+-best-)(throughput|latency|saturated)_\w+", name):
        return f"{matched[1]}{matched[2]}_mark"
    if matched := re.fullmatch(r"(.+)-(gain|efficiency)(?:_last)?", name):
        return f"{matched[1]}-{matched[2]}_mark"
    matched = re.fullmatch(r"(.+-b\d+)-(?:latency|throughput|request|roofline)_\w+", name)
    return f"{matched[1]}-mark" if matched else None
