"""What the kernel says of this process's control group: kills for want of memory, peak memory, limits, throttling."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def oom_kills(root: Path = ROOT) -> int | None:
    """Processes killed for memory in this process's control group so far; None where nothing counts them.

    Version 2 counts them in `memory.events` (groups below included), version 1 in `memory.oom_control`
    (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
    """
    for file in _counters(root):
        if (kills := _counts(file.parent, file.name).get("oom_kill")) is not None:
            return kills
    return None


def killed_since(kills_before: int | None, root: Path = ROOT) -> bool:
    """Whether a process was killed for memory since `oom_kills` said this; what was not counted is no kill."""
    kills = oom_kills(root)
    return None not in (kills_before, kills) and kills > kills_before


def _counters(root: Path) -> list[Path]:
    """Where the count may stand."""
    groups = memberships()
    two = [at / own / "memory.events" for kind, own in groups if not kind for at in (root, root / "unified")]
    return two + [root / "memory" / own / "memory.oom_control" for kind, own in groups if "memory" in kind]


def memberships() -> list[tuple[list[str], str]]:
    """This process's groups as (controllers, path without its first slash); version 2 has no controllers.

    A line of /proc/self/cgroup is `number:controllers:path`, version 2 is `0::path`.
    """
    try:
        lines = [line.split(":", 2) for line in MEMBERSHIP.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    return [(line[1].split(",") if line[1] else [], line[2].lstrip("/")) for line in lines if len(line) == 3]


def limits(root: Path = ROOT) -> dict[str, str | None]:
    """What limits this process: `cpu.max` ("quota period" in µs), `memory.max` (bytes), `cpuset.cpus.effective`.

    A limit of any group above holds too, so the tightest from the own group up to the root counts. Version 1's files
    are read where version 2 has none, and told in version 2's form. None: no file says.
    """
    two = _version_2(root)
    quota = _tightest([said for folder in two for up in _upwards(folder, root) if (said := _quota(up))], share)
    quota = quota or _tightest([said for up in _version_1_cpu(root) if (said := _quota_of_1(up))], share)
    memory = _tightest([said for folder in two for up in _upwards(folder, root) if (said := _memory(up))], _number)
    memory = memory or _version_1_memory(root)
    cores = next((said for folder in two for up in _upwards(folder, root) if (said := _said(up, CPUSET))), None)
    one = [root / "cpuset" / own for kind, own in memberships() if "cpuset" in kind]
    cores = cores or next((said for folder in one if (said := _said(folder, "cpuset.effective_cpus"))), None)
    return {"cpu.max": quota, "memory.max": memory, CPUSET: cores}


CPUSET = "cpuset.cpus.effective"
QUOTA = re.compile(r"(max|\d+)( [1-9]\d*)?")
MEMORY = re.compile(r"max|\d+")


def _version_2(root: Path) -> list[Path]:
    """The folders of this process's groups of version 2; version 1 may be mounted beside it."""
    return [at / own for kind, own in memberships() if not kind for at in (root, root / "unified")] or [root]


def _upwards(folder: Path, root: Path) -> list[Path]:
    return [folder, *(up for up in folder.parents if up == root or root in up.parents)] if folder != root else [root]


def _said(folder: Path, name: str) -> str | None:
    try:
        return (folder / name).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _counts(folder: Path, name: str) -> dict[str, int]:
    """The numbers of a file of lines such as `oom_kill 3`; what is no count is left out."""
    lines = [line.split() for line in (_said(folder, name) or "").splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}


def _number(said: str) -> float:
    return float("inf") if said == "max" else float(said)


def share(said: str) -> float:
    """Cores that a quota in the form of `cpu.max` allows; infinite: no limit."""
    quota, _, period = said.partition(" ")
    return float("inf") if quota == "max" else float(quota) / float(period or 100_000)


def _tightest(said: list[str], size: Callable[[str], float]) -> str | None:
    return min(said, key=size, default=None)


def _quota(folder: Path) -> str | None:
    return said if QUOTA.fullmatch(said := _said(folder, "cpu.max") or "") else None


def _memory(folder: Path, name: str = "memory.max") -> str | None:
    return said if MEMORY.fullmatch(said := _said(folder, name) or "") else None


def _version_1_cpu(root: Path) -> list[Path]:
    """The folders of this process's CPU groups, from its own up."""
    own = [root / "cpu" / group for kind, group in memberships() if "cpu" in kind]
    return [up for folder in own for up in _upwards(folder, root)]


def _quota_of_1(folder: Path) -> str | None:
    """A quota of version 1 in the form of version 2."""
    quota, period = _said(folder, "cpu.cfs_quota_us"), _said(folder, "cpu.cfs_period_us")
    said = f"{'max' if quota == '-1' else quota} {period}"
    return said if QUOTA.fullmatch(said) else None


def _version_1_memory(root: Path) -> str | None:
    folders = [root / "memory" / own for kind, own in memberships() if "memory" in kind]
    groups = [up for folder in folders for up in _upwards(folder, root)]
    smallest = _tightest([said for up in groups if (said := _memory(up, "memory.limit_in_bytes"))], _number)
    return "max" if smallest and _number(smallest) >= VERSION_1_UNLIMITED else smallest


VERSION_1_UNLIMITED = 2**62  # version 1 says a number near 2^63 for no limit


# ------------------------------------------------------------------ throttling


@dataclass(frozen=True)
class Throttling:
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
    quotas = {up: _quota(up) for folder in _version_2(root) for up in _upwards(folder, root)}
    quotas |= {up: said for up in _version_1_cpu(root) if (said := _quota_of_1(up))}
    found = {str(up): _throttling(up) for up, said in quotas.items() if said and not math.isinf(share(said))}
    return {folder: counted for folder, counted in found.items() if counted}


def _throttling(folder: Path) -> Throttling | None:
    """Counters of `cpu.stat` (admin-guide/cgroup-v2.rst: µs; version 1, scheduler/sched-bwc.rst: ns)."""
    counts = _counts(folder, "cpu.stat")
    units = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
    seconds = [counts[name] * unit for name, unit in units.items() if name in counts]
    if not seconds or not {"nr_periods", "nr_throttled"} <= counts.keys():
        return None
    return Throttling(counts["nr_periods"], counts["nr_throttled"], seconds[0])


def throttled_between(before: dict[str, Throttling], after: dict[str, Throttling]) -> Throttling | None:
    """What happened between two readings in the group that was stopped for longest; None: none was counted."""
    found = [_less(after[folder], counted) for folder, counted in before.items() if folder in after]
    known = [one for one in found if min(one.periods, one.throttled, one.throttled_s) >= 0]  # else it was made anew
    return max(known, key=lambda one: (one.throttled_s, one.throttled, one.periods), default=None)


def _less(after: Throttling, before: Throttling) -> Throttling:
    return Throttling(
        after.periods - before.periods, after.throttled - before.throttled, after.throttled_s - before.throttled_s
    )


class PeakMemory:
    """The highest memory of this process's control group from here on, where the kernel can begin to count anew.

    Writing to memory.peak resets it for this reader (Linux 6.12, admin-guide/cgroup-v2.rst); without that it would hold
    what other processes of the group used earlier.

    Attributes:
        reason: why there is no such number; None when there is.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._file, self.reason = None, "no control group of version 2 counts memory here"
        for kind, own in memberships():
            for at in (root, root / "unified"):
                if not kind and (at / own / "memory.peak").is_file():
                    self._begin(at / own / "memory.peak")

    def _begin(self, file: Path) -> None:
        try:
            self._file = file.open("r+", encoding="utf-8")
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
