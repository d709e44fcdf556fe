"""Tables behind the main one: tails of the latency, parts of a request, phases of memory, the roofline, the control."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench import simulated_traces
from distilbench.measurements.sweep.show.findings import mark
from distilbench.report import spread
from distilbench.report.tables import milliseconds
from distilbench.runs.folder import Run
from distilbench.stats import CLAIMED, MIN_REPETITIONS, PERCENTILES


def tails(table: pd.DataFrame) -> pd.DataFrame:
    """Percentiles of single iterations, in ms; those that too few iterations bear stand in brackets.

    Args:
        table: as `load.table` gives it, like all of this module.
    """
    return _rows(table, "iterations_ms", _tail)


def _tail(found: dict[str, Any]) -> dict[str, str]:
    row = {"n": f"{found['n']:,}"}
    for p in PERCENTILES:
        text = milliseconds(found[f"p{p}"])
        row[f"p{p} (ms)"] = text if found[f"p{p}_licensed"] else f"({text})"
    return row


def processes(table: pd.DataFrame) -> pd.DataFrame:
    """What differs within a process and between processes, and which of the two makes an interval wide."""
    return _rows(table, "iterations_ms", _process)


def _process(found: dict[str, Any]) -> dict[str, str]:
    alike, split, faults = (found.get(name) for name in ("autocorrelation", "variance_ms2", "page_faults"))
    return {
        "outliers": str(found.get("outliers", "–")),
        "autocorrelation": "–" if alike is None else f"{alike:.2f}",
        "page faults": f"{faults[0]:,.0f} to {faults[1]:,.0f}" if faults else "–",
        "variance between processes": f"{split['share_between']:.0%}" if split else "–",
    }


def requests(table: pd.DataFrame) -> pd.DataFrame:
    """Parts of a synchronous request from text to label, in ms, and the share that is not the forward."""
    return _rows(table, "request", _request, "latency_request_ms_reason")


def _request(found: dict[str, Any]) -> dict[str, str]:
    parts = {name: found[f"{name}_ms"] for name in ("tokenise", "transfer", "forward", "postprocess")}
    shown = {f"{name} (ms)": f"{value:.3g}" for name, value in parts.items()}
    return shown | {"not the forward": f"{1 - parts['forward'] / sum(parts.values()):.1%}"}


def requests_caption(table: pd.DataFrame) -> str:
    """Over how many processes the parts of a request are."""
    return _over("Where the time of a request goes", table, "latency_request_ms")


def memory(table: pd.DataFrame) -> pd.DataFrame:
    """Memory by phase, in MiB: of the device that the model runs on."""
    return _rows(table, "memory", _memory, "peak_memory_MiB_reason", timed=False)


def memory_caption(table: pd.DataFrame) -> str:
    """Over how many processes the phases are; they are others than those that were timed."""
    return _over("Memory by phase (MiB)", table, "peak_memory_MiB")


def _over(what: str, table: pd.DataFrame, name: str) -> str:
    n = spread.count_in_words(table, name)
    return f"{what}; medians over {n}" if n else f"{what}: not measured"


def _memory(found: dict[str, Any]) -> dict[str, str]:
    unit = "cuda" if found["loaded_cuda_MiB"] is not None else "rss"
    row = {"libraries": _MiB(found["started_rss_MiB"])} if unit == "rss" else {}
    names = {"model loaded": "loaded", "peak of the first forward": "first_peak", "peak after it": "steady_peak"}
    row |= {shown: _MiB(found[f"{name}_{unit}_MiB"]) for shown, name in names.items()}
    return row | {"above the loaded model": _MiB(found[f"delta_{unit}_MiB"])}


def _MiB(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def roofline(table: pd.DataFrame) -> pd.DataFrame:
    """Rates that a cell reached, what bounds it, and how much of that bound it reached."""
    return _rows(table, "roofline", _roofline)


def _roofline(found: dict[str, Any]) -> dict[str, str]:
    return {
        "GFLOP/s": f"{found['flops_per_s'] / 1e9:.3g}",
        "GB/s at least": f"{found['bytes_per_s'] / 1e9:.3g}",
        "FLOP/byte at most": f"{found['flops_per_byte']:.3g}",
        "bound by": found["bound"],
        "share of the bound": f"{found['fraction']:.0%}",
    }


def roofline_caption(chosen: list[Run]) -> str:
    """What the rates of the roofline table stand against."""
    said = []
    for run in chosen:
        found = run.summary.get("ceilings") or {}
        if "reason" in found:
            said.append(f"none: {found['reason']}")
        elif found:
            rates = [f"{rate / 1e9:.3g} GFLOP/s in {dtype}" for dtype, rate in found["matrix_flops_per_s"].items()]
            copying = f"{found['memory_bytes_per_s'] / 1e9:.3g} GB/s of memory"
            said.append(f"{', '.join(rates)}, {copying}" + (f" (run {run.run_id})" if len(chosen) > 1 else ""))
    against = f"against ceilings measured in the run: {'; '.join(said)}" if said else "no ceilings were measured"
    return f"Rates reached, {against}"


def control(summary: dict[str, Any]) -> str | None:
    """What the control cell says of the run, in a sentence; None where there is none."""
    found = summary.get("control")
    if not found or found["ratio"] is None:
        return None
    interval = found["ratio_interval_95"]
    span = f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    verdict = {
        "SAME": "rightly called the same",
        "AMBIGUOUS": "so equal things cannot be called the same here" if interval else "too few repetitions to judge",
    }.get(found["verdict"], f"a false {found['verdict']}: differences of this size mean nothing here")
    doubts = "".join(f"; {doubt}" for doubt in found["cell"].get("doubts", []))
    return (
        f"control: {found['cell']['control_of']}, measured under a second name, took {found['ratio']:.3f} times as long"
        f"{span}, {verdict}{doubts}"
    )


def intervals(run: Run) -> str | None:
    """What Student's t over so few repetitions is worth, in a sentence; None: what it claims, or there is none.

    The control cell and comparisons of runs rest on it; what stands beside single numbers supposes less (`spread`).
    """
    n = run.config["parameters"]["repetitions"]
    found = simulated_traces.coverages(n) if n >= MIN_REPETITIONS else {}
    missed = [kind for kind, share in found.items() if share < CLAIMED[0]]
    if not missed:
        return None
    told = ", ".join(f"{share:.1%} ({kind})" for kind, share in found.items())
    better = ", ".join(f"{simulated_traces.coverages(simulated_traces.USUAL)[kind]:.1%} ({kind})" for kind in missed)
    usual = (
        f"; over {simulated_traces.USUAL}, as a full run has by default, in {better}"
        if n < simulated_traces.USUAL
        else ""
    )
    return f"comparisons: Student's t over {n} repetitions, at 95 %, holds the truth of simulated ones in {told}{usual}"


def nodes(summary: dict[str, Any]) -> str | None:
    """What the nodes of a cluster make of the run, in a sentence; None where there was one machine."""
    found = summary.get("nodes")
    if not found:
        return None
    said = f"measured on {len(found['repetitions'])} nodes"
    if found["ratios"] is None:
        return f"{said}, each cell on one of them: what differs between cells may differ between nodes"
    ratios = sorted(found["ratios"].items(), key=lambda pair: pair[1])
    (fast, least), (slow, most) = ratios[0], ratios[-1]
    said += f": the same work took {most / least - 1:.1%} longer on {slow} than on {fast}"
    if (p := found["p_value"]) is None:
        return f"{said}; too few rounds ({found['rounds']}) to tell that from chance"
    tested = f"p = {p:.2g}, F test over {found['rounds']} rounds"
    if p >= 0.05:
        return f"{said}, no more than chance can do ({tested})"
    return f"{said}, which is more than chance ({tested}): intervals hold that too, and narrow on one node (--nodelist)"


def _rows(table: pd.DataFrame, column: str, shown: Any, reason: str = "", timed: bool = True) -> pd.DataFrame:
    """One row per cell that has the column; machine and variant where they vary; else why there is none.

    Args:
        reason: the column that says why a cell has none.
        timed: by the processes whose state a cell has; unstable ones are marked.
    """
    keys = {"machine": "machine", "variant": "variant", "length_policy": "length", "batch_size": "batch size"}
    rows = []
    for row in table.to_dict("records"):
        if isinstance(found := row.get(column), dict):
            named = {title: str(row[key]) for key, title in keys.items()}
            named["batch size"] += mark(row.get("state")) if timed else ""
            rows.append(named | shown(found))
    if not rows:
        why = table[reason].dropna().unique().tolist() if reason in table else []
        return pd.DataFrame({"note": [": ".join(["this was not measured", *why[:1]])]})
    frame = pd.DataFrame(rows).fillna("–")
    return frame.drop(columns=[name for name in ("machine", "variant") if frame[name].nunique() == 1])
