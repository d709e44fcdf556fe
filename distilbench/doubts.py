"""Doubts: what a reader must know beside a cell's numbers."""

from __future__ import annotations

from typing import Any

from distilbench.records import Repetition
from distilbench.stats import MIN_REPETITIONS

#: From how many cores on it is said beside the numbers.
BUSY = {
    "parent_cores": (0.01, "the parent used {:.2f} cores while it was timed"),
    "foreign_cores": (0.2, "other processes used {:.1f} cores while it was timed"),
    "stolen_cores": (0.05, "the hypervisor gave {:.2f} cores to others while it was timed"),
}
COMPARABLE = (("pyrapl", "rapl"), ("nvml-power", "nvml-counter"))  # sources of energy that measure the same thing
SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80  # nvmlClocksThrottleReason: power cap, slowdown of hardware or software


def doubts_of(timing: list[Repetition], cell: dict[str, Any]) -> list[str]:
    """What a reader must know beside the number."""
    doubts = []
    if 0 < len(timing) < MIN_REPETITIONS:
        doubts.append(f"{len(timing)} repetition{'s' if len(timing) > 1 else ''}: no interval")
    if unsettled := sum(record.status == "unstable" for record in timing):
        doubts.append(
            f"unstable: {unsettled} of {len(timing)} processes had not settled when their warm-up was cut off"
        )
    if any(record.warmup and record.warmup.settled is None for record in timing):
        doubts.append("whether the warm-up had settled was not tested")
    if len({record.logits_sha256 for record in timing}) > 1:
        doubts.append("logits differ between repetitions")
    for name, (least, said) in BUSY.items():
        if (cores := cell[name] or 0) > least:
            doubts.append(said.format(cores))
    if (spread := cell.get("latency_ms_range")) and spread[1] > 1.1 * spread[0]:
        doubts.append(f"repetitions differ by {spread[1] / spread[0] - 1:.0%}")
    return doubts + _telemetry_doubts(cell["telemetry"]) + _roofline_doubts(cell["roofline"]) + _energy_doubts(cell)


def _telemetry_doubts(telemetry: dict[str, Any]) -> list[str]:
    doubts = []
    for name, what in (("cpu_MHz", "CPU"), ("gpu_sm_MHz", "GPU")):
        if (clock := telemetry[name]) and clock[0] < 0.9 * clock[1]:
            doubts.append(f"the {what}'s clock went between {clock[0]:.0f} and {clock[1]:.0f} MHz")
    if (throttles := telemetry["cpu_throttles"]) and throttles[1]:
        doubts.append(f"the CPU was throttled {throttles[1]} times within a second")
    if (reasons := telemetry["gpu_throttle_reasons"]) and reasons[1] & SLOWED:
        doubts.append(f"the GPU was slowed (throttle reasons {reasons[1] & SLOWED:#x}, nvml.h)")
    if (foreign := telemetry["gpu_foreign_processes"]) and foreign[1]:
        doubts.append(f"{foreign[1]} other processes computed on the GPU")
    return doubts


def _roofline_doubts(roofline: dict[str, Any] | None) -> list[str]:
    if roofline is None or 0.01 <= roofline["fraction"] <= 1:
        return []
    return [
        f"{roofline['fraction']:.1%} of what the measured {roofline['bound']} ceiling allows: "
        + ("above it, so that ceiling or work is wrong" if roofline["fraction"] > 1 else "suspiciously little")
    ]


def _energy_doubts(cell: dict[str, Any]) -> list[str]:
    if not cell["energy_source"]:
        return []
    doubts = list(cell["energy_notes"])
    if cell["energy_windows"] < MIN_REPETITIONS:
        windows = cell["energy_windows"]
        doubts.append(f"energy: {'one window' if windows == 1 else f'{windows} windows'}, no interval")
    if cell["energy_source"] in ("modelled", "nvml-power"):
        how = "modelled, not measured" if cell["energy_source"] == "modelled" else "integrated from sampled power"
        doubts.append(f"energy is {how}")
    if (net := cell["energy_net_per_sample_J"]) is not None and net <= 0:
        doubts.append("net energy is not above 0: the machine drew as much when idle")
    return doubts + [
        f"energy by {name} is {difference:+.1%} against {cell['energy_source']}"
        for name, difference in cell["energy_others"].items()
        if (name, cell["energy_source"]) in COMPARABLE
    ]
