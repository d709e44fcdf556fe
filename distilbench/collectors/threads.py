"""How many threads really compute: what a library was told is no proof of what it does.

OMP_THREAD_LIMIT=1 and OMP_DYNAMIC=true leave one thread of two at work while torch.get_num_threads() still says 2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASKS = Path("/proc/self/task")
LEAST_S = 0.2  # of work in one look: many times the tick of 4 ms to which the kernel's counters may lag
LOOKS = 3  # before fewer threads than asked for are believed
SHARE = (
    0.1  # of the busiest thread's time: one that waits its turn on a busy core has more, one that waits for work less
)
SIDE = 2048  # of the matrices: 4 Mi elements each
NOT_IN_MEMORY_PASS = "left out of the memory pass, whose peaks it would raise"
NO_COUNTERS = "the system shows no time of single threads (/proc/self/task/*/schedstat)"


@dataclass(frozen=True)
class Use:
    """What a look saw: how many threads worked, and the CPU time of the process over the wall time."""

    threads: int
    cores: float


def product(torch: Any) -> Callable[[], Any]:
    """A large float32 matrix product, on memory of its own.

    All three matrices lie in one block of 48 MiB, which the C library maps and gives back as a whole: smaller blocks,
    once freed, would move the limit from which it maps (mallopt(3), M_MMAP_THRESHOLD) for all that is measured later.
    """
    block = torch.ones(3 * SIDE * SIDE, dtype=torch.float32)
    left, right, out = block.view(3, SIDE, SIDE)
    return lambda: torch.mm(left, right, out=out)


def used(work: Callable[[], Any], asked: int, looks: int = LOOKS, least_s: float = LEAST_S) -> Use | None:
    """How many threads share the work; looks again where they are fewer than asked for.

    Other load takes time from each thread, but wakes none and puts none to sleep: hence threads that got time are
    counted, and the cores that they got stand beside, for the record.

    Returns:
        The last look; None where the system does not count the time of threads.
    """
    work()  # the threads start, and libraries choose their kernels
    found = None
    for _ in range(looks):
        found = _look(work, least_s)
        if found is None or found.threads >= asked:
            break
    return found


def _look(work: Callable[[], Any], least_s: float) -> Use | None:
    before, cpu_s, start = times_s(), time.process_time(), time.perf_counter()
    while time.perf_counter() - start < least_s:
        work()
    seconds, cpu_s, after = time.perf_counter() - start, time.process_time() - cpu_s, times_s()
    if not after:
        return None
    return Use(worked(before, after), cpu_s / seconds)


def times_s(tasks: Path = TASKS) -> dict[str, float]:
    """CPU seconds so far by thread of this process; empty where the system does not count them.

    The first number of schedstat is nanoseconds on a core (Documentation/scheduler/sched-stats.rst).
    """
    found = {}
    for file in tasks.glob("*/schedstat"):
        try:
            found[file.parent.name] = int(file.read_text(encoding="utf-8").split()[0]) / 1e9
        except (OSError, ValueError, IndexError):  # it ended meanwhile, or the kernel does not say
            continue
    return found


def worked(before: dict[str, float], after: dict[str, float]) -> int:
    """How many threads got a real share of the time between two readings."""
    spent = [seconds - before.get(thread, 0.0) for thread, seconds in after.items()]
    return sum(seconds > SHARE * max(spent) for seconds in spent)
