"""How many threads really compute: what a library was told is no proof of what it does.

OMP_THREAD_LIMIT=1 and OMP_DYNAMIC=true leave one thread of two at work while torch.get_num_threads() still says 2.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import ImplausibleError
from distilbench.machine import environment

TASKS = Path("/proc/self/task")
LEAST_S = 0.1  # of work in one look: many times the tick of 4 ms to which the kernel's counters may lag
LOOKS = 3  # before fewer threads than asked for are believed
SHARE = 0.1  # of an even share: a thread that waits its turn on a busy core has more, one without work less
COUNTED = 0.5  # of this process's time that its threads' must add up to, else they are not counted
SIDE = 2048  # of the matrices, at least
GRAIN = 32768  # elements below which torch leaves a thread out (ATen/Parallel.h, GRAIN_SIZE)
NOT_IN_MEMORY_PASS = "left out of the memory pass, whose peaks it would raise"
NO_COUNTERS = "the system shows no time of single threads (/proc/self/task/*/schedstat)"


@dataclass(frozen=True)
class Use:
    """What a look saw.

    Attributes:
        threads: how many got a real share of the work.
        cores: CPU time of the process over wall time.
        cpus: on which cores these threads may run.
    """

    threads: int
    cores: float
    cpus: frozenset[int]


def works(torch: Any, asked: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Work that torch divides evenly among its threads, and a large float32 matrix product.

    The first one counts threads; a matrix library leaves some out where their number does not suit it (MKL: one of
    three, of five, of sixteen).

    All three matrices lie in one block of 48 MiB or more, which the C library maps and gives back as a whole: smaller
    blocks, once freed, would move the limit from which it maps (mallopt(3), M_MMAP_THRESHOLD) for all that is measured
    later.
    """
    side = max(SIDE, math.isqrt(GRAIN * asked) + 1)
    left, right, out = torch.ones(3 * side * side, dtype=torch.float32).view(3, side, side)
    return lambda: torch.exp(left, out=out), lambda: torch.mm(left, right, out=out)


def used(work: Callable[[], Any], asked: int, looks: int = LOOKS, least_s: float = LEAST_S) -> Use | None:
    """How many threads share the work; looks again where they are fewer than asked for.

    Other load takes time from each thread, but wakes none and puts none to sleep: hence threads that got time are
    counted, and the cores that they got stand beside, for the record.

    Returns:
        The last look; None where the system does not count the time of threads.
    """
    work()  # the threads start, and libraries choose their kernels
    use = None
    for _ in range(looks):
        use = _look(work, asked, least_s)
        if use is None or use.threads >= asked:
            break
    return use


def _look(work: Callable[[], Any], asked: int, least_s: float) -> Use | None:
    before, cpu_s, start = times_s(), time.process_time(), time.perf_counter()
    while time.perf_counter() - start < least_s:
        work()
    seconds, cpu_s, after = time.perf_counter() - start, time.process_time() - cpu_s, times_s()
    counted_s = sum(after.values()) - sum(before.values())
    if not after or counted_s < COUNTED * cpu_s:  # kernels without scheduler statistics print zeros
        return None
    mine = worked(before, after, asked)
    return Use(len(mine), cpu_s / seconds, frozenset().union(*map(_may_run_on, mine)))


def _may_run_on(thread: str) -> set[int]:
    """Its cores; none once it has ended."""
    with suppress(OSError):
        return os.sched_getaffinity(int(thread))
    return set()


def times_s(tasks: Path = TASKS) -> dict[str, float]:
    """CPU seconds so far by thread of this process; empty where the system does not count them.

    The first number of schedstat is nanoseconds on a core (Documentation/scheduler/sched-stats.rst).
    """
    times = {}
    for file in tasks.glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # it ended meanwhile, or the kernel does not say
            times[file.parent.name] = int(file.read_text(encoding="utf-8").split()[0]) / 1e9
    return times


def worked(before: dict[str, float], after: dict[str, float], asked: int) -> list[str]:
    """The threads that got a real share of the time between two readings, had it been shared by `asked`."""
    spent = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
    share = sum(spent.values()) / asked
    return [thread for thread, seconds in spent.items() if seconds > SHARE * share]


def problem(asked: int, even: Use, product: Use, usable: int) -> str | None:
    """Why not all threads that were asked for compute; None: they do. More may be threads that do other things.

    Args:
        even: a look at work that is divided evenly.
        product: a look at a matrix product, whose library may leave a few out.
    """
    if even.threads < asked:
        return f"{asked} threads were asked for and {even.threads} computed, on {even.cores:.2f} cores"
    if len(even.cpus) < min(asked, usable):
        return f"{asked} threads were asked for and all of them are bound to {len(even.cpus)} of {usable} cores"
    if 2 * product.threads <= asked and asked > 1:
        return f"{asked} threads were asked for and {product.threads} computed a matrix product"
    return None


def proof(torch: Any, asked: int, usable: int, must: bool = True) -> dict[str, Any]:
    """Measures that as many threads compute as were asked for, before minutes are spent on it.

    Args:
        torch: the module, which was set to use that many.
        must: refuse where they do not; False where a GPU computes.

    Returns:
        The record's fields: `threads_used` and `product_cores`, or `threads_used_reason`.

    Raises:
        ImplausibleError: fewer threads compute; it names the variables that limit them.
    """
    # measured, since num_threads is what a library was asked for and a limit may have taken threads away
    even, product = (used(work, asked) for work in works(torch, asked))
    if even is None or product is None:
        return {"threads_used_reason": NO_COUNTERS}
    if must and (why := problem(asked, even, product, usable)):
        given = ", ".join(environment.variables_of_threads())
        raise ImplausibleError(
            f"{why} ({f'set are {given}' if given else 'no variable that limits threads is set'}): "
            f"unset what limits them, or ask for fewer (-p num_threads {even.threads}), in a new run (--new)"
        )
    return {"threads_used": even.threads, "product_cores": product.cores}


def main(job_file: Path) -> int:
    """`proof` in a process of its own: 0 where it holds, else 1, with the reason beside the job."""
    import torch

    asked = paths.read_json(job_file)["num_threads"]
    torch.set_num_threads(asked)
    return proven(torch, asked, job_file)


def proven(torch: Any, asked: int, job_file: Path) -> int:
    """0 where `proof` holds in this process, else 1, with the reason in a file beside the job."""
    try:
        proof(torch, asked, len(os.sched_getaffinity(0)))
    except ImplausibleError as error:
        paths.write_json(job_file.with_suffix(".failure.json"), {"status": "invalid", "error": str(error)})
        return 1
    return 0
