"""Doubts: what a reader must know beside a cell's numbers."""

from __future__ import annotations

from statistics import median
from typing import Any

from distilbench.measurements.sweep.records import Repetition
from distilbench.stats import MIN_REPETITIONS

#: From how many cores on it is said beside the numbers.
BUSY = {
    "parent_cores": (0.01, "the parent used {:.2f} cores while it was timed"),
    "foreign_cores": (0.2, "other processes used {:.1f} cores while it was timed"),
    "stolen_cores": (0.05, "the hypervisor gave {:.2f} cores to others while it was timed"),
}
NOT_TESTED = "whether the warm-up had settled was not tested"
WIDE = 0.05  # from which half-width on it is said that a median is hardly known
FREE = 0.6  # share of its threads that a product gets as cores, where nothing else wants them (MKL uses two of three)
AGREE = 0.05  # within which two sources of energy agree
ALIKE = 1.5  # by which factor windows of the same work may differ in power
OVER_LIMIT = 1.25  # a package holds its limits on average only, and memory, often without one, is beside it
COMPARABLE = (("pyrapl", "rapl"), ("nvml-power", "nvml-counter"))  # sources of energy that measure the same thing
SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80  # nvmlClocksThrottleReason: power cap, slowdown of hardware or software


def doubts_of(timing: list[Repetition], cell: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """What a reader must know beside the numbers of a cell.

    Args:
        timing: its finished repetitions of that pass.
        cell: its part of the summary.
        params: of the run.
    """
    doubts = [f"invalid, {said}" for said in cell["errors"] if ": invalid: " in said][:1]
    if 0 < len(timing) < MIN_REPETITIONS:
        doubts.append(f"{len(timing)} repetition{'s' if len(timing) > 1 else ''}: no interval")
    if unsettled := sum(record.status == "unstable" for record in timing):
        doubts.append(
            f"unstable: {unsettled} of {len(timing)} processes had not settled when their warm-up was cut off"
        )
    if any(record.warmup and record.warmup.settled is None for record in timing):
        doubts.append(NOT_TESTED)
    widths = [record.median_half_width for record in timing if record.median_half_width is not None]
    if widths and max(widths) > max(WIDE, params.get("half_width", 0)):
        doubts.append(f"a process was cut off with its median known to {max(widths):.0%} only")
    if cut := cell.get("truncated_share"):
        doubts.append(
            f"{cut:.1%} of the sentences are cut to {cell['length_policy'].removeprefix('fixed-')} tokens: time and "
            "accuracy are those of shorter text"
        )
    if len({record.logits_sha256 for record in timing}) > 1:
        doubts.append("logits differ between repetitions")
    for name, (least, said) in BUSY.items():
        if (cores := cell[name] or 0) > least:
            doubts.append(said.format(cores))
    threads, cores = cell.get("threads_used"), cell.get("product_cores")
    if threads and cores < FREE * threads:
        doubts.append(f"before it was timed, {threads:.0f} threads of a large product got {cores:.1f} cores only")
    if throttled := cell["throttled_periods"]:
        doubts.append(
            f"throttled by its CPU quota in {throttled:,} of {cell['quota_periods']:,} periods "
            f"({cell['throttled_s']:.2g} s, each core by itself)"
        )
    if (spread := cell.get("latency_ms_range")) and spread[1] > 1.1 * spread[0]:
        doubts.append(f"repetitions differ by {spread[1] / spread[0] - 1:.0%}")
        if (faults := cell["iterations_ms"]["page_faults"]) and faults[1] > max(2 * faults[0], 1000):
            doubts.append(
                f"so do their page faults, {faults[0]:,.0f} to {faults[1]:,.0f} in a forward: the C library's heap "
                "gives memory back and fetches it again, in each process otherwise (`heap: keep` prevents it)"
            )
    return doubts + _telemetry_doubts(cell["telemetry"]) + _roofline_doubts(cell["roofline"]) + _energy_doubts(cell)


def _telemetry_doubts(telemetry: dict[str, Any]) -> list[str]:
    doubts = []
    for name, what in (("cpu_MHz", "CPU"), ("gpu_sm_MHz", "GPU")):
        if (clock := telemetry[name]) and clock[0] < 0.9 * clock[1]:
            doubts.append(f"the {what}'s clock went between {clock[0]:.0f} and {clock[1]:.0f} MHz")
    if throttles := telemetry["cpu_throttles"]:
        doubts.append(f"the CPU was throttled for heat ({throttles} times, by all its threads together)")
    if (reasons := telemetry["gpu_throttle_reasons"]) and reasons & SLOWED:
        doubts.append(f"the GPU was slowed (throttle reasons {reasons & SLOWED:#x}, nvml.h)")
    if (foreign := telemetry["gpu_foreign_processes"]) and foreign[1]:
        doubts.append(f"{foreign[1]} other processes computed on the GPU")
    return doubts


def _roofline_doubts(roofline: dict[str, Any] | None) -> list[str]:
    if roofline is None or 0.01 <= roofline["fraction"] <= 1:
        return []
    above = "weights may stay in a cache, or the ceiling was measured in a bad moment"
    why = above if roofline["fraction"] > 1 else "suspiciously little"
    return [f"{roofline['fraction']:.1%} of what the measured {roofline['bound']} ceiling allows: {why}"]


def _energy_doubts(cell: dict[str, Any]) -> list[str]:
    if not cell["energy_source"]:
        return []
    doubts = list(cell["energy_notes"])
    if cell["energy_windows"] < MIN_REPETITIONS:
        windows = cell["energy_windows"]
        doubts.append(f"energy: {'one window' if windows == 1 else f'{windows} windows'}, no interval")
    else:
        doubts.append("energy: windows of one process; their range does not hold what differs between processes")
    if (cores := cell["energy_foreign_cores"] or 0) > BUSY["foreign_cores"][0]:
        doubts.append(f"energy: other processes used {cores:.1f} cores meanwhile")
    if throttled := cell["energy_throttled_periods"]:
        doubts.append(
            f"energy: throttled by its CPU quota in {throttled:,} of {cell['energy_quota_periods']:,} periods"
        )
    if cell["energy_tick_ms"] is None and cell["energy_source"] in ("rapl", "nvml-counter"):
        doubts.append("energy: how often the counter is renewed could not be seen")
    before, after = cell["energy_idle_W"]
    if None not in (before, after) and abs(after - before) > 0.1 * max(before, after):
        doubts.append(f"energy: at rest the machine drew {before:.1f} W before and {after:.1f} W after")
    if None in (before, after):
        doubts.append(f"energy: none net, since {cell['energy_net_per_sample_J_reason']}")
    doubts += _power_doubts(cell)
    if cell["energy_source"] in ("modelled", "nvml-power"):
        how = "modelled, not measured" if cell["energy_source"] == "modelled" else "integrated from sampled power"
        doubts.append(f"energy is {how}")
    if (net := cell["energy_net_per_sample_J"]) is not None and net <= 0:
        doubts.append("net energy is not above 0: the machine drew as much when idle")
    return doubts + [
        f"energy by {name} is {difference:+.1%} against {cell['energy_source']}"
        for name, difference in cell["energy_others"].items()
        if abs(difference) > AGREE
    ]


def _power_doubts(cell: dict[str, Any]) -> list[str]:
    """Whether the power of the windows can be that of this machine at this work."""
    watts, limit_W, invalid = cell["energy_windows_W"], cell["energy_limit_W"], cell["energy_windows_invalid"]
    rest_W, doubts = [power for power in cell["energy_idle_W"] if power is not None], []
    if invalid:
        every = len(watts) + len(invalid)
        doubts.append(f"energy: {len(invalid)} of {every} windows are invalid and left out: {invalid[0]}")
    if rest_W and min(watts) < 0.9 * min(rest_W):
        doubts.append(f"energy: a window drew {min(watts):.1f} W, and the machine at rest {min(rest_W):.1f} W")
    if limit_W and (most_W := max(watts + rest_W)) > OVER_LIMIT * limit_W:
        doubts.append(f"energy: {most_W:.4g} W were drawn, and the power limit is {limit_W:.4g} W")
    if max(watts) > ALIKE * median(watts) or median(watts) > ALIKE * min(watts):
        drew = f"between {min(watts):.4g} and {max(watts):.4g} W"
        doubts.append(f"energy: the windows drew {drew}, though all hold the same work")
    return doubts
