"""Who else used the cores while something was measured: two looks at the kernel's counters, and nothing in between.

/proc/stat counts, per core, the time that any process used it and the time that a hypervisor gave to others (steal);
see proc_stat(5). What the measured process used itself is known once it has ended.
"""

from __future__ import annotations

import os
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from distilbench.machine.kernel_files import text_of

STAT = Path("/proc/stat")
CORE = re.compile(r"^cpu(\d+)((?: \d+){8,})$", re.MULTILINE)
USER, NICE, SYSTEM, _IDLE, _IOWAIT, IRQ, SOFTIRQ, STEAL = range(8)  # the columns of a core's line


@dataclass(frozen=True)
class CpuCounters:
    """Seconds so far: the clock, use and steal of the usable `cores`, use of this process and of its ended children."""

    clock_s: float
    used_s: float | None
    stolen_s: float | None
    own_s: float
    children_s: float
    cores: frozenset[int] = frozenset()


def cpu_counters() -> CpuCounters:
    """The counters now; what the system does not show is None."""
    cores = frozenset(os.sched_getaffinity(0))
    used_s, stolen_s = _cores(text_of(STAT) or "", cores) or (None, None)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended_s = children.ru_utime + children.ru_stime
    # of children only those that ended are counted: a worker's use shows once it was waited for
    return CpuCounters(time.monotonic(), used_s, stolen_s, time.process_time(), ended_s, cores)


def _cores(stat: str, usable: frozenset[int]) -> tuple[float, float] | None:
    """Seconds that the usable cores were used, and stolen; None unless every one of them is counted.

    A container may show other cores than those that it uses, or lines in which nothing ever counts.
    """
    counts = {int(core): [int(number) for number in numbers.split()] for core, numbers in CORE.findall(stat)}
    if not all(any(counts.get(core, [])) for core in usable):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    used = sum(counts[core][i] for core in usable for i in (USER, NICE, SYSTEM, IRQ, SOFTIRQ))
    return used / tick, sum(counts[core][STEAL] for core in usable) / tick


#: The share of what a process and its children say they used that the cores' counters may lack: both count in ticks.
UNCOUNTED = 0.5


def cpu_use_between(before: CpuCounters, after: CpuCounters) -> dict[str, float | None]:
    """What happened between two looks, in cores (1 is a whole core for the whole time).

    Returns:
        `parent_cores`: use by this process, which should sleep. `foreign_cores`: use by others than this process and
        the children that ended in between. `stolen_cores`: what a hypervisor gave to other machines. These two are
        None where they were not counted: not by this system, not of the same cores (the affinity was changed
        meanwhile), a counter went back, as they do where a virtual machine is moved, or it stood still while this
        process and its children worked, as some containers show it.
    """
    seconds = max(after.clock_s - before.clock_s, 1e-9)
    own = after.own_s - before.own_s
    result = {"parent_cores": own / seconds, "foreign_cores": None, "stolen_cores": None}
    known = before.used_s is not None and after.used_s is not None and before.cores == after.cores
    if known and after.used_s >= before.used_s and after.stolen_s >= before.stolen_s:
        mine = own + after.children_s - before.children_s
        foreign = after.used_s - before.used_s - mine
        if foreign < -UNCOUNTED * max(mine, 1.0):
            return result
        result["foreign_cores"] = max(0.0, foreign) / seconds
        result["stolen_cores"] = (after.stolen_s - before.stolen_s) / seconds
    return result
