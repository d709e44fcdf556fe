"""How tests wait: as long as something moves. A slow machine is no failure; one on which nothing happens is.

A limit on a wait is either patience, in which nothing at all moved, or CPU time, which is a process's own clock. What
hangs and keeps busy all the same is ended by pytest's limit for a whole test.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import psutil
import pytest

PATIENCE_S = 90.0  # without any sign of work
LOOK_S = 1.0  # between two looks for one: it costs more than most conditions
WORK_S = 0.5  # of CPU time; less is what idle servers take all the while


class Patience:
    """Ends the test when nothing has moved for a time.

    Attributes:
        what: is waited for.
        signs: gives something that changes as long as work goes on; by default which processes there are below this
            one, and their CPU time.
        seconds: how long nothing may move.
    """

    def __init__(self, what: object, signs: Callable[[], Hashable] | None = None, seconds: float = PATIENCE_S) -> None:
        self.what, self.signs, self.seconds = what, signs or work_below, seconds
        self._seen, self._moved = self.signs(), time.monotonic()
        self._look = self._moved + LOOK_S

    def spend(self, pause_s: float = 0.05) -> None:
        """A pause between two looks at what is waited for; fails once patience is at its end."""
        time.sleep(pause_s)
        if (now := time.monotonic()) < self._look:
            return
        self._look = now + LOOK_S
        if (seen := self.signs()) != self._seen:
            self._seen, self._moved = seen, now
        elif now - self._moved > self.seconds:
            pytest.fail(f"nothing moves any more (for {self.seconds:g} s), and this never came: {self.what}")


def wait_for(
    condition: Callable[[], Any],
    what: object = "",
    signs: Callable[[], Hashable] | None = None,
    patience_s: float = PATIENCE_S,
    pause_s: float = 0.05,
) -> Any:
    """What the condition gives once it holds; see `Patience` for the rest."""
    if found := condition():
        return found
    patience = Patience(what or condition, signs, patience_s)
    while not (found := condition()):
        patience.spend(pause_s)
    return found


def ended(process: subprocess.Popen) -> tuple[Any, Any]:
    """What a process said on stdout and stderr until its end, however long it works."""
    patience = Patience(f"the end of {process.args}")
    while True:
        try:
            return process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:  # what was read so far is kept for the next call
            patience.spend(0)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` with what it says as text, however long it works; not left behind when the wait fails."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        out, said = ended(process)
    finally:
        process.kill()
        process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, said)


def alive(process: psutil.Process) -> bool:
    """Whether it still does anything; a dead process may wait a while for its new parent to take note."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(processes: Iterable[psutil.Process], cpu_s: float = 15.0, patience_s: float = 20.0) -> bool:
    """Whether the processes end, before they have taken that much more CPU time together.

    Those that wait for something else, and so would never take it, have `patience_s`.
    """
    processes = list(processes)
    spent, began = cpu_time_s(processes), time.monotonic()
    seen, moved = spent, began
    while any(map(alive, processes)):
        now = cpu_time_s(processes)
        if now > seen:
            seen, moved = now, time.monotonic()
        if now - spent > cpu_s or time.monotonic() - moved > patience_s:
            return False
        time.sleep(0.02)
    return True


def cpu_time_s(processes: Iterable[psutil.Process]) -> float:
    """CPU time of those processes that are still there."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total


def work_of(processes: Iterable[psutil.Process]) -> Hashable:
    """Something that changes when one of the processes begins, ends or has worked."""
    return frozenset((process.pid, int(cpu_time_s([process]) / WORK_S)) for process in processes)


def work_below(pid: int | None = None) -> Hashable:
    """`work_of` all processes below one; by default below this one."""
    try:
        return work_of(psutil.Process(pid or os.getpid()).children(recursive=True))
    except psutil.NoSuchProcess:
        return None
