"""What the kernel counts for this process's control group: how often it killed there for want of memory."""

from __future__ import annotations

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
            lines = (line.split() for line in file.read_text().splitlines())
            return next(int(words[1]) for words in lines if words[:1] == ["oom_kill"])
        except (OSError, StopIteration):
            continue
    return None


def _counters(root: Path) -> list[Path]:
    """Where the count may stand: a line of /proc/self/cgroup is `number:controllers:path`, version 2 is `0::path`."""
    try:
        lines = [line.split(":", 2) for line in MEMBERSHIP.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        own = path.lstrip("/")
        if not controllers:
            found += [root / own / "memory.events", root / "unified" / own / "memory.events"]
        elif "memory" in controllers.split(","):
            found.append(root / "memory" / own / "memory.oom_control")
    return found
