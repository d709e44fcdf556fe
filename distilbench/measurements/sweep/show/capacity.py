"""Capacity: from a measured run to the devices that a service needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from distilbench.errors import ParameterError, RunError
from distilbench.measurements.sweep.show import findings
from distilbench.report import load, spread
from distilbench.runs.folder import Run
from distilbench.stats import MIN_REPETITIONS

MILLION = 1e6


@dataclass(frozen=True)
class Demand:
    """What a service must bear.

    Attributes:
        rate: sentences per second that come in.
        max_latency_ms: from the arrival of a sentence to its label.
        utilisation: share of the time that a device may be busy; near 1, waiting lines grow without bound.
        devices_per_node: for node-hours.
    """

    rate: float
    max_latency_ms: float
    utilisation: float = 0.8
    devices_per_node: int = 1


@dataclass(frozen=True)
class Plan:
    """What one cell would need. A pair holds the low and the high end of what `spread` says of the number.

    Attributes:
        cell, batch_size: what is run.
        request_ms: a synchronous request, text to label, of one batch.
        fill_ms: until a batch is full at even arrival: what the first sentence in it waits.
        worst_ms: the high end of request_ms, and fill_ms.
        devices, devices_range: how many.
        node_hours, node_hours_range: per million sentences.
        kWh, kWh_range: per million sentences, gross; None where energy was not measured.
        meets: whether worst_ms is allowed.
        note: what a reader must know.
    """

    cell: str
    batch_size: int
    request_ms: float
    fill_ms: float
    worst_ms: float
    devices: int
    devices_range: tuple[int, int]
    node_hours: float
    node_hours_range: tuple[float, float]
    kWh: float | None
    kWh_range: tuple[float, float] | None
    meets: bool
    note: str


def plans(run: Run, demand: Demand) -> list[Plan]:
    """One plan per measured cell, the best first: those that meet the latency, by devices, then by latency.

    A device answers one batch after the other, each as a synchronous request: what the run measured, and less than a
    server reaches that tokenises while the device computes.

    Raises:
        ParameterError: a demand that cannot be.
        RunError: the run has no measured cell.
    """
    if demand.rate <= 0 or demand.max_latency_ms <= 0 or not 0 < demand.utilisation <= 1:
        raise ParameterError("--rate and --max-latency-ms must be above 0, --utilisation above 0 and at most 1")
    summary = run.summary
    found = [_plan(cell, demand) for cell in summary["cells"] if cell["latency_ms"] is not None]
    if not found:
        raise RunError(f"run {run.run_id} has no measured cell")
    return sorted(found, key=lambda plan: (not plan.meets, plan.devices, plan.worst_ms))


def _plan(cell: dict[str, Any], demand: Demand) -> Plan:
    name = "latency_request_ms" if cell["latency_request_ms"] is not None else "latency_ms"
    notes = [] if name == "latency_request_ms" else ["without tokenising: requests were not timed"]
    if (n := cell[f"{name}_repetitions"]) < MIN_REPETITIONS:
        notes.append(f"range of {n} repetitions, no interval")
    low, high = spread.ends(cell, name)
    size, ms = cell["batch_size"], cell[name]
    # sentences per second that a device bears, with the share of the time in which it stands by
    rates = [size / one * 1e3 * demand.utilisation for one in (ms, low, high)]
    devices, fewest, most = (math.ceil(demand.rate / rate) for rate in rates)
    hours, least, longest = (MILLION / rate / 3600 / demand.devices_per_node for rate in rates)
    worst_ms = high + (fill_ms := (size - 1) / (demand.rate / devices) * 1e3)
    joules, windows = cell["energy_per_sample_J"], spread.ends(cell, "energy_per_sample_J")
    return Plan(
        cell["cell"], size, ms, fill_ms, worst_ms, devices, (fewest, most), hours, (least, longest),
        None if joules is None else _kWh(joules),
        None if joules is None or not windows else (_kWh(windows[0]), _kWh(windows[1])),
        worst_ms <= demand.max_latency_ms,
        ", ".join([*notes, *(["unstable"] if cell["state"] == "unstable" else [])]),
    )  # fmt: skip


def _kWh(joules_per_sample: float) -> float:
    return joules_per_sample * MILLION / 3.6e6


def table(found: list[Plan]) -> pd.DataFrame:
    """One row per plan, as text."""
    return pd.DataFrame(
        {
            "cell": plan.cell + (findings.mark("unstable") if "unstable" in plan.note else ""),
            "request (ms)": f"{plan.request_ms:.3g}",
            "fill (ms)": f"{plan.fill_ms:.3g}",
            "worst (ms)": f"{plan.worst_ms:.3g}",
            "devices": _spread(plan.devices, plan.devices_range),
            "node-h / million": _spread(plan.node_hours, plan.node_hours_range),
            "kWh / million": "–" if plan.kWh is None else _spread(plan.kWh, plan.kWh_range),
            "verdict": "meets it" if plan.meets else "too slow",
        }
        for plan in found
    )


def _spread(value: float, ends: tuple[float, float] | None) -> str:
    if ends is None or ends[0] == ends[1] == value:
        return f"{value:.3g}"
    return f"{value:.3g} ({ends[0]:.3g}–{ends[1]:.3g})"


def headline(run: Run, found: list[Plan]) -> str:
    """The best plan in a sentence, with what it does not hold."""
    best, machine = found[0], load.label(run)
    if not best.meets:
        return f"No cell answers in time on {machine}; the quickest would take {best.worst_ms:.3g} ms at worst."
    doubt = f" ({best.note})" if best.note else ""
    kWh = "energy was not measured" if best.kWh is None else f"{best.kWh:.3g} kWh (gross)"
    return (
        f"{_spread(best.devices, best.devices_range)} devices of the kind {machine} with batch size {best.batch_size} "
        f"({best.cell}); per million sentences {best.node_hours:.3g} node-hours, {kWh}{doubt}. Arrival is taken as "
        "even, and what a network and a web server add is not in it."
    )
