"""RAPL: the CPU's own energy counters, as the kernel's powercap tree shows them, and what they add up to."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from distilbench.errors import ImplausibleError, RunError
from distilbench.machine.kernel_files import number_in, text_of

POWERCAP = Path("/sys/class/powercap")
ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")  # AMD's zones have this name too; intel-rapl-mmio repeats the packages
#: More than any package draws: the largest of 2026 may draw 500 W for long, and their peaks are short of twice that.
MOST_W = 1000.0
STALE_S = 0.1  # how old a reading may be: most counters are renewed once a millisecond, a few only every 60 ms


@dataclass(frozen=True)
class Counter:
    """An energy counter of the kernel's powercap tree (Documentation/power/powercap/powercap.rst).

    Attributes:
        name: such as package-0 or package-0-die-1; a zone within a package is package-0/dram.
        readable: whether this process can read it.
        note: where it is; if it cannot be read, why and what helps.
        file: energy_uj, in microjoules since some moment.
        range_uJ: where it starts again at 0; None where the kernel does not say.
        counted: whether it may be added to others. Cores and uncore are held by their package, and psys holds all
            packages; DRAM is held by none.
        limit_W: the highest of its power limits, those for a short time included; None where the kernel says none.
    """

    name: str
    readable: bool
    note: str
    file: Path | None = None
    range_uJ: int | None = None
    counted: bool = True
    limit_W: float | None = None


def powercap_root() -> Path:
    """Where the kernel shows its counters: $DISTILBENCH_POWERCAP_ROOT, else /sys/class/powercap."""
    return Path(os.environ.get("DISTILBENCH_POWERCAP_ROOT") or POWERCAP)


def rapl_counters(root: Path | None = None) -> list[Counter]:
    """The RAPL counters under `root` (`powercap_root()` when not given), packages first, each followed by its zones."""
    folder = root or powercap_root()
    every = [zone for depth in ("*", "*/*") for zone in folder.glob(depth) if ZONE.fullmatch(zone.name)]
    zones = {zone.name: zone for zone in every}  # the kernel shows a zone within a package in both places
    ordered = [zones[name] for name in sorted(zones, key=lambda name: [int(n) for n in name.split(":")[1:]])]
    names = {zone.name: text_of(zone / "name") or zone.name for zone in ordered}
    return [_counter(zone, names) for zone in ordered]


def _counter(zone: Path, names: dict[str, str]) -> Counter:
    package, _, below = zone.name.rpartition(":") if zone.name.count(":") > 1 else ("", "", "")
    own, file = names[zone.name], zone / "energy_uj"
    name = f"{names.get(package, package)}/{own}" if below else own
    counted = own == "dram" if below else own != "psys"
    try:
        file.read_text(encoding="utf-8")
    except PermissionError:
        return Counter(name, False, f"{file} is for root only; `chmod a+r` it, or ask the site", counted=counted)
    except OSError as error:
        return Counter(name, False, f"{file}: {error.strerror}", counted=counted)
    return Counter(name, True, str(file), file, number_in(zone / "max_energy_range_uj"), counted, _limit_W(zone))


def _limit_W(zone: Path) -> float | None:
    """A limit of 0 is not set, and one that no package reaches is none."""
    files = [file for name in ("power_limit_uw", "max_power_uw") for file in zone.glob(f"constraint_*_{name}")]
    known = [limit for file in files if (limit := number_in(file)) and limit <= MOST_W * 1e6]
    return max(known) / 1e6 if known else None


class Meter:
    """Adds up the joules of the counters that may be added.

    A counter starts again at 0 after `range_uJ`; `update` must be called at least once in that time (a package of 200 W
    takes about twenty minutes), and better often: what a counter can have counted since the last call is how it is
    known whether it went over its end, or was started anew.

    Raises:
        RunError: none of them can be read.
    """

    def __init__(self, counters: list[Counter]) -> None:
        self.counters = [counter for counter in counters if counter.readable and counter.counted]
        if not self.counters:
            raise RunError("no energy counter can be read here: `distilbench doctor` says why")
        self.energy_J = {counter.name: 0.0 for counter in self.counters}
        self.restart()

    def restart(self) -> None:
        """Counts from here, whatever the counters did since they were read last."""
        self._since, self._last = time.perf_counter(), [reading_uJ(counter) for counter in self.counters]

    def update(self) -> dict[str, float]:
        """Reads all counters; returns the joules of each since the meter was made.

        Raises:
            RunError: a counter cannot be read any more.
            ImplausibleError: a counter did what it cannot do; that step is not counted, and the next one may be.
        """
        before, since = self._last, self._since
        self.restart()
        seconds = time.perf_counter() - since  # from before the last readings to after these: never too short
        pairs = zip(self.counters, before, self._last, strict=True)
        spent = [(counter.name, spent_uJ(counter, *readings, seconds)) for counter, *readings in pairs]
        for name, uJ in spent:  # only once all of them can be believed
            self.energy_J[name] += uJ / 1e6
        return dict(self.energy_J)


def reading_uJ(counter: Counter) -> int:
    """What a counter says now.

    Raises:
        RunError: nothing, or no number.
    """
    try:
        return int(counter.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{counter.note} cannot be read any more: {error}") from error


def spent_uJ(counter: Counter, before: int, after: int, seconds: float) -> int:
    """What was spent between two readings.

    A counter that went back is believed to have gone over its end only where that takes no more than MOST_W in the time
    between both readings (and in that by which they may be stale): then the first stood near the range. From anywhere
    else it was set back, and what it counted is lost.

    Raises:
        ImplausibleError: it went back from elsewhere, or does not say its range, or forward by more than that.
    """
    step = f"{counter.note} went {'back' if after < before else 'on'} from {before} to {after} µJ"
    if after < before and counter.range_uJ is None:
        raise ImplausibleError(f"{step} and does not say its range")
    spent, most = after - before + (counter.range_uJ if after < before else 0), MOST_W * (seconds + STALE_S) * 1e6
    if 0 <= spent <= most:
        return spent
    why = f"that is more than {MOST_W:g} W, which no package draws"
    if after < before:
        why = f"its range of {counter.range_uJ} µJ was not near: it was set back (a suspend, the driver loaded again)"
    raise ImplausibleError(f"{step} within {seconds:.2g} s; {why}")


def power_W(counters: list[Counter], seconds: float = 0.5) -> dict[str, float]:
    """Mean power of each counter that may be added, over a short while."""
    meter, start = Meter(counters), time.monotonic()
    time.sleep(seconds)
    joules, took = meter.update(), time.monotonic() - start
    return {name: value / took for name, value in joules.items()}


def unavailable_reason() -> str | None:
    """Why no RAPL counter can be used here; None when one can."""
    counters = rapl_counters()
    if not counters:
        return f"no RAPL counter at {powercap_root()} (a virtual machine, or a kernel without powercap)"
    if not any(counter.readable and counter.counted for counter in counters):
        return f"RAPL cannot be read: {counters[0].note}"
    return None
