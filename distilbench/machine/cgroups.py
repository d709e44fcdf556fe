"""What the kernel says of this process's control group: kills for want of memory, peak memory, limits, throttling.

Version 2 has one tree of groups; version 1 has one for each controller, and both may be mounted at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from distilbench.machine.kernel_files import text_of

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
CPUSET = "cpuset.cpus.effective"
QUOTA = re.compile(r"(max|\d+)( [1-9]\d*)?")
MEMORY = re.compile(r"max|\d+")
VERSION_1_UNLIMITED = 2**62  # version 1 says a number near 2^63 for no limit


def memberships() -> list[tuple[list[str], str]]:
    """This process's groups as (controllers, path without its first slash); version 2 has no controllers.

    A line of /proc/self/cgroup is `number:controllers:path`, version 2 is `0::path`.
    """
    lines = [line.split(":", 2) for line in (text_of(MEMBERSHIP) or "").splitlines()]
    return [(line[1].split(",") if line[1] else [], line[2].lstrip("/")) for line in lines if len(line) == 3]


def _own(root: Path, controller: str = "") -> list[Path]:
    """The folders of this process's groups of that controller of version 1; without one, of version 2."""
    if controller:
        return [root / controller / own for controllers, own in memberships() if controller in controllers]
    return [at / own for controllers, own in memberships() if not controllers for at in (root, root / "unified")]


def _with_all_above(root: Path, controller: str = "") -> Iterator[Path]:
    """The own groups and those above: what limits a group limits all below it."""
    for folder in _own(root, controller) or ([] if controller else [root]):
        yield folder
        if folder != root:
            yield from (up for up in folder.parents if up == root or root in up.parents)


def _counts(file: Path) -> dict[str, int]:
    """The numbers of a file of lines such as `oom_kill 3`; what is no count is left out."""
    lines = [line.split() for line in (text_of(file) or "").splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}


# ------------------------------------------------------------------ memory


def oom_kills(root: Path = ROOT) -> int | None:
    """Processes killed for memory in this process's control group so far; None where nothing counts them.

    Version 2 counts them in `memory.events` (groups below included), version 1 in `memory.oom_control`
    (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
    """
    files = [folder / "memory.events" for folder in _own(root)]
    files += [folder / "memory.oom_control" for folder in _own(root, "memory")]
    return next((kills for file in files if (kills := _counts(file).get("oom_kill")) is not None), None)


def killed_since(kills_before: int | None, root: Path = ROOT) -> bool:
    """Whether a process was killed for memory since `oom_kills` said this; what was not counted is no kill."""
    kills = oom_kills(root)
    return None not in (kills_before, kills) and kills > kills_before


class PeakMemory:
    """The highest memory of this process's control group from here on, where the kernel can begin to count anew.

    Writing to memory.peak resets it for this reader (Linux 6.12, admin-guide/cgroup-v2.rst); without that it would hold
    what other processes of the group used earlier.

    Attributes:
        reason: why there is no such number; None when there is.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._file, self.reason = None, "no control group of version 2 counts memory here"
        for file in (folder / "memory.peak" for folder in _own(root)):
            if file.is_file():
                self._begin(file)

    def _begin(self, file: Path) -> None:
        try:
            self._file = file.open("r+", encoding="utf-8")  # kept open: the reset holds for this descriptor only
            self._file.write("reset")
            self._file.flush()
            self.reason = None
        except OSError as error:  # before Linux 6.12 it opens, and refuses what is written
            self.reason = f"{file} cannot be reset: {error.strerror}"
            self._file = None

    def bytes(self) -> int | None:
        """The peak so far; None with a reason."""
        if self._file is None:
            return None
        self._file.seek(0)
        return int(self._file.read())


# ------------------------------------------------------------------ limits


def limits(root: Path = ROOT) -> dict[str, str | None]:
    """What limits this process: `cpu.max` ("quota period" in µs), `memory.max` (bytes), `cpuset.cpus.effective`.

    A limit of any group above holds too, so the tightest from the own group up to the root counts. Version 1's files
    are read where version 2 has none, and given in version 2's form. None: no file says.
    """
    quota = _tightest(map(_quota, _with_all_above(root)), share)
    quota = quota or _tightest(map(_quota_of_1, _with_all_above(root, "cpu")), share)
    memory = _tightest((_limit(up / "memory.max") for up in _with_all_above(root)), float)
    memory = memory or _memory_of_1(root)
    files = [up / CPUSET for up in _with_all_above(root)]
    files += [folder / "cpuset.effective_cpus" for folder in _own(root, "cpuset")]
    return {"cpu.max": quota, "memory.max": memory, CPUSET: next(filter(None, map(text_of, files)), None)}


def share(quota: str) -> float:
    """Cores that a quota in the form of `cpu.max` allows; infinite: no limit."""
    cpu_time, _, period = quota.partition(" ")
    return math.inf if cpu_time == "max" else float(cpu_time) / float(period or 100_000)


def _tightest(limits: Iterator[str | None], size: Callable[[str], float]) -> str | None:
    return min(filter(None, limits), key=lambda limit: math.inf if limit == "max" else size(limit), default=None)


def _quota(folder: Path) -> str | None:
    text = text_of(folder / "cpu.max") or ""
    return text if QUOTA.fullmatch(text) else None


def _quota_of_1(folder: Path) -> str | None:
    """A quota of version 1 in the form of version 2."""
    quota, period = text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us")
    text = f"{'max' if quota == '-1' else quota} {period}"
    return text if QUOTA.fullmatch(text) else None


def _limit(file: Path) -> str | None:
    text = text_of(file) or ""
    return text if MEMORY.fullmatch(text) else None


def _memory_of_1(root: Path) -> str | None:
    files = (up / "memory.limit_in_bytes" for up in _with_all_above(root, "memory"))
    smallest = _tightest(map(_limit, files), float)
    return "max" if smallest and float(smallest.replace("max", "inf")) >= VERSION_1_UNLIMITED else smallest


# ------------------------------------------------------------------ throttling


class Throttling(NamedTuple):
    """What a CPU quota did to a group: its periods, in how many of them it was stopped, and for how long in all.

    Since the group was made, or between two readings. A period counts when something in the group wanted to run. Each
    core that is stopped adds its own time.
    """

    periods: int
    throttled: int
    throttled_s: float


NO_QUOTA = "no control group that is seen here has a CPU quota and counts its periods"
OTHER_GROUPS = "the control groups with a CPU quota, or their counters, were others at the end than at the beginning"


def throttling(root: Path = ROOT) -> dict[str, Throttling]:
    """Of each group with a CPU quota that this process is in, from its own up, by folder; empty: none is seen."""
    quotas = {up: _quota(up) for up in _with_all_above(root)}
    quotas |= {up: quota for up in _with_all_above(root, "cpu") if (quota := _quota_of_1(up))}
    limited = (up for up, quota in quotas.items() if quota and not math.isinf(share(quota)))
    return {str(up): counted for up in limited if (counted := _throttling(up))}


def _throttling(folder: Path) -> Throttling | None:
    """Counters of `cpu.stat` (admin-guide/cgroup-v2.rst: µs; version 1, scheduler/sched-bwc.rst: ns)."""
    counts = _counts(folder / "cpu.stat")
    units = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
    seconds = [counts[name] * unit for name, unit in units.items() if name in counts]
    if not seconds or not {"nr_periods", "nr_throttled"} <= counts.keys():
        return None
    return Throttling(counts["nr_periods"], counts["nr_throttled"], seconds[0])


def throttled_between(before: dict[str, Throttling], after: dict[str, Throttling]) -> Throttling | None:
    """What happened between two readings in the group that was stopped for longest; None: none was counted."""
    pairs = [(counted, after[folder]) for folder, counted in before.items() if folder in after]
    spans = [Throttling(*(now - then for then, now in zip(*pair, strict=True))) for pair in pairs]
    known = [span for span in spans if min(span) >= 0]  # else the group was made anew
    return max(known, key=lambda span: span[::-1], default=None)
