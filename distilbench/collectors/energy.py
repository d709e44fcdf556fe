"""Energy: which counters this machine has. An absent counter is said with its reason, never replaced by a guess."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from distilbench import environment

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """An energy counter: what it is called, whether it can be read, and if not, why and what helps."""

    name: str
    readable: bool
    note: str


def powercap_root() -> Path:
    """Where the kernel shows its counters: $DISTILBENCH_POWERCAP_ROOT, else /sys/class/powercap."""
    return Path(os.environ.get("DISTILBENCH_POWERCAP_ROOT") or POWERCAP)


def rapl_counters(root: Path | None = None) -> list[Counter]:
    """The RAPL counters under `root` (`powercap_root()` when not given)."""
    counters = []
    for zone in sorted((root or powercap_root()).glob("intel-rapl:*")):
        file = zone / "energy_uj"
        try:
            name = (zone / "name").read_text().strip()
        except OSError:
            name = zone.name
        try:
            file.read_text()
            counters.append(Counter(name, True, str(file)))
        except PermissionError:
            counters.append(Counter(name, False, f"{file} is for root only; `chmod a+r` it, or ask the site"))
        except OSError as error:
            counters.append(Counter(name, False, f"{file}: {error.strerror}"))
    return counters


def unavailable_reason(device: str) -> str:
    """Why this version of the benchmark reports no energy for work on `device`."""
    if device.startswith("cuda"):
        gpus, why = environment.gpus()
        return "the energy pass is not built yet; NVML is readable" if gpus else f"no GPU counter: {why}"
    counters = rapl_counters()
    if not counters:
        return f"no RAPL counter at {powercap_root()} (a virtual machine, or a kernel without powercap)"
    if not any(counter.readable for counter in counters):
        return f"RAPL cannot be read: {counters[0].note}"
    return "the energy pass is not built yet; RAPL is readable"
