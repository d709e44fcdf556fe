"""What the kernel says of this process's control group: kills for want of memory, peak memory, limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def oom_kills(root: Path = ROOT) -> int | None:
    """Processes killed for memory in this process's control group so far; None where nothing counts them.

    Version 2 counts them in `memory.events` (groups below included), version 1 in `memory.oom_control`
    (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
    """
    for file in _counters(root):
        try:
            lines = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
            return next(int(words[1]) for words in lines if words[:1] == ["oom_kill"])
        except (OSError, StopIteration):
            continue
    return None


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
    two = [at / own for kind, own in memberships() if not kind for at in (root, root / "unified")] or [root]
    quota = _tightest(two, root, "cpu.max", _share) or _version_1_quota(root)
    memory = _tightest(two, root, "memory.max", _number) or _version_1_memory(root)
    cores = next((said for folder in two for up in _upwards(folder, root) if (said := _said(up, CPUSET))), None)
    one = [root / "cpuset" / own for kind, own in memberships() if "cpuset" in kind]
    cores = cores or next((said for folder in one if (said := _said(folder, "cpuset.effective_cpus"))), None)
    return {"cpu.max": quota, "memory.max": memory, CPUSET: cores}


CPUSET = "cpuset.cpus.effective"


def _upwards(folder: Path, root: Path) -> list[Path]:
    return [folder, *(up for up in folder.parents if up == root or root in up.parents)] if folder != root else [root]


def _said(folder: Path, name: str) -> str | None:
    try:
        return (folder / name).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _number(said: str) -> float:
    return float("inf") if said == "max" else float(said)


def _share(said: str) -> float:
    quota, _, period = said.partition(" ")
    return float("inf") if quota == "max" else float(quota) / float(period or 100_000)


def _tightest(folders: list[Path], root: Path, name: str, size: Callable[[str], float]) -> str | None:
    found = [said for folder in folders for up in _upwards(folder, root) if (said := _said(up, name))]
    return min(found, key=size, default=None)


def _version_1_quota(root: Path) -> str | None:
    found = []
    for kind, own in memberships():
        if "cpu" in kind:
            for up in _upwards(root / "cpu" / own, root):
                quota, period = _said(up, "cpu.cfs_quota_us"), _said(up, "cpu.cfs_period_us")
                if quota and period:
                    found.append(f"{'max' if int(quota) < 0 else quota} {period}")
    return min(found, key=_share, default=None)


def _version_1_memory(root: Path) -> str | None:
    found = []
    for kind, own in memberships():
        if "memory" in kind:
            found += [s for up in _upwards(root / "memory" / own, root) if (s := _said(up, "memory.limit_in_bytes"))]
    smallest = min(found, key=_number, default=None)
    return "max" if smallest and int(smallest) >= VERSION_1_UNLIMITED else smallest


VERSION_1_UNLIMITED = 2**62  # version 1 says a number near 2^63 for no limit


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
