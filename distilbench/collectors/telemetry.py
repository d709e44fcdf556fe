"""The state of the machine between cycles: clock, temperature, throttling; and its neighbours during them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import mean

from distilbench.collectors import cpu_use
from distilbench.collectors.nvml import Gpu
from distilbench.machine.kernel_files import number_in

SYS_CPU = Path("/sys/devices/system/cpu")
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")  # psutil's names of what sits on a CPU
BLOCK_S = 1.0


class Telemetry:
    """Reads the machine at most once a second, never while an iteration is timed: a reading takes time and caches."""

    def __init__(self, gpu: Gpu | None = None) -> None:
        self.gpu = gpu
        self._counters, self._throttles = cpu_use.cpu_counters(), cpu_throttles()

    def due(self) -> bool:
        """Whether the last reading is a second old."""
        return time.monotonic() - self._counters.clock_s >= BLOCK_S

    def block(self) -> dict[str, float | int | None]:
        """Columns for the last iteration of a block: the state now, and what happened since the last reading."""
        now, throttles = cpu_use.cpu_counters(), cpu_throttles()
        meanwhile = cpu_use.cpu_use_between(self._counters, now)
        counted = None not in (throttles, self._throttles) and throttles >= self._throttles  # none went back
        since = throttles - self._throttles if counted else None
        self._counters, self._throttles = now, throttles
        state = {name: meanwhile[name] for name in ("foreign_cores", "stolen_cores")}
        state |= {"cpu_MHz": cpu_MHz(), "cpu_temperature_C": cpu_temperature_C(), "cpu_throttles": since}
        return state | (self.gpu.state() if self.gpu else {})


def cpu_MHz() -> float | None:
    """Mean clock of the usable cores; None where the kernel shows none (in most virtual machines).

    /proc/cpuinfo is no substitute: without cpufreq it shows the nominal clock, whatever the core does.
    """
    clocks = [number_in(SYS_CPU / f"cpu{core}" / "cpufreq" / "scaling_cur_freq") for core in os.sched_getaffinity(0)]
    known = [clock for clock in clocks if clock]
    return mean(known) / 1e3 if known else None


def cpu_throttles() -> int | None:
    """How often heat slowed the usable cores since boot; None unless the kernel counts it for each.

    Both threads of a core show its count: what matters is whether it grows.
    """
    folders = [SYS_CPU / f"cpu{core}" / "thermal_throttle" for core in os.sched_getaffinity(0)]
    counts = [number_in(folder / "core_throttle_count") for folder in folders]
    return None if None in counts else sum(counts)


def cpu_temperature_C() -> float | None:
    """The hottest sensor on the CPU; None where there is none."""
    import psutil

    sensors = psutil.sensors_temperatures()
    readings = [reading.current for name in SENSORS for reading in sensors.get(name, [])]
    return max(readings, default=None)
