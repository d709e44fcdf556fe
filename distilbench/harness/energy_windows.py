"""The energy pass: idle, windows of whole cycles, idle again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from distilbench.collectors.energy import Source
from distilbench.errors import DistilbenchError, ImplausibleError, RunError
from distilbench.machine.device import synchronize
from distilbench.sources.models import LoadedModel

TICKS = 100  # a window must hold so many updates of its counter, or the update it begins within is too much of it
WARM_UP_S = 10.0  # for energy a chip must be warm as well
HOST_TOO = "the host's counters are those of the whole machine: what others do on it is in them"


class Windows:
    """Runs all sources over one window after the other; a source that fails in a window is left out from then on.

    The one to report is the first; when that fails, the pass fails. A window of which a source says what cannot be is
    invalid for that source: it has no joules there, and measures the next one.

    Attributes:
        used: the sources that still measure.
        notes: why others do not.
        invalid: by source, why it has no joules in the last window.
    """

    def __init__(self, used: list[Source]) -> None:
        self.used, self.notes, self.invalid = list(used), [], {}

    def over(self, work: Callable[[], Any]) -> tuple[float, dict[str, float], Any]:
        """(seconds, joules by source, result) of the work, which must be done when it returns.

        Raises:
            RunError: the source to report did not count.
        """
        self.invalid = {}
        try:
            self._each("begin", reversed(self.used))  # the one to report last, and it ends first: it is the innermost
            start = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - start
            joules = self._each("end", self.used)
        except BaseException:
            for source in self.used:
                source.abandon()
            raise
        for source in [one for one in self.used if one.name in joules]:
            self._judge(source, joules[source.name], seconds)
        standing = {one.name for one in self.used} - self.invalid.keys()
        return seconds, {name: value for name, value in joules.items() if name in standing}, result

    def _judge(self, source: Source, joules: float, seconds: float) -> None:
        """Whether a source can have measured that."""
        if not math.isfinite(joules):
            self.invalid[source.name] = f"{source.name} says {joules} J, which is no number"
        elif joules <= 0:
            self._lost(source, f"the counter did not move in {seconds:.1f} s")
        elif source.most_W and joules > source.most_W * seconds:
            text = f"{source.name} says {joules:.4g} J in {seconds:.3g} s, {joules / seconds:.4g} W"
            self.invalid[source.name] = f"{text}; what it measures draws less than {source.most_W:g} W"

    def poll(self) -> None:
        """To be called while the work is done, once a second or so."""
        self._each("poll", self.used)

    def _each(self, method: str, asked: Iterable[Source]) -> dict[str, Any]:
        """Calls that method of every source; those that fail are left out."""
        results = {}
        for source in list(asked):
            try:
                results[source.name] = getattr(source, method)()
            except ImplausibleError as error:
                self.invalid.setdefault(source.name, str(error))
            except DistilbenchError as error:
                self._lost(source, str(error))
        return results

    def _lost(self, source: Source, why: str) -> None:
        if source is self.used[0]:
            raise RunError(f"{source.name}: {why}")
        self.used.remove(source)
        self.notes.append(f"{source.name}: {why}")


def measure(
    protocol: dict[str, Any],
    loaded: LoadedModel,
    tensors: list[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    used: list[Source],
) -> dict[str, Any]:
    """The record's `energy` (`records.Energy`).

    Args:
        protocol: energy_windows, energy_window_s, energy_idle_s.
        tensors: per batch (input_ids, attention_mask), int64 (batch, length), on the device.
        used: what measures, the one to report first.

    Raises:
        RunError: the source to report failed.
        ImplausibleError: it has no joules that can be believed in half of the windows or more.
    """
    windows, samples = Windows(used), sum(len(ids) for ids, _ in tensors)

    def cycles(seconds: float) -> int:
        """Whole cycles for at least so long; returns their number."""
        done, deadline = 0, time.perf_counter() + seconds
        while done == 0 or time.perf_counter() < deadline:
            for ids, mask in tensors:
                loaded.forward(ids, mask)
            synchronize(device)  # once a cycle: the host must not queue beyond the window
            windows.poll()
            done += 1
        return done

    tick_ms = used[0].tick_ms()
    least_s = max(TICKS * (tick_ms or 0) / 1e3, used[0].least_s)
    window_s, idle_s = (max(protocol[f"energy_{name}_s"], least_s) for name in ("window", "idle"))
    limits_W = {source.name: limit for source in used if (limit := source.limit_W()) is not None}
    # idle before and after: what the machine draws at rest drifts with its temperature
    before, before_invalid = idle_W(windows, idle_s), windows.invalid
    cycles(min(WARM_UP_S, protocol["energy_window_s"]))
    measured = []
    for _ in range(protocol["energy_windows"]):
        seconds, joules, done = windows.over(lambda: cycles(window_s))
        window = {"seconds": seconds, "samples": done * samples, "joules": joules, "invalid": windows.invalid}
        measured.append(window)
    require_most(measured, used[0].name)
    after, after_invalid = idle_W(windows, idle_s), windows.invalid
    return {
        "windows": measured,
        "idle_before_W": before,
        "idle_after_W": after,
        "idle_invalid": after_invalid | before_invalid,
        "idle_s": idle_s,
        "limits_W": limits_W,
        "tick_ms": tick_ms,
        "counters": {source.name: source.parts for source in used},
        "notes": windows.notes + ([HOST_TOO] if any(source.scope == "host" for source in used) else []),
    }


def require_most(windows: list[dict[str, Any]], source: str) -> None:
    """The numbers are those of the windows that can be believed; where these are not the most, there are none.

    One window that a counter was set back in says nothing against the others, but it is not made up for either: the
    others count, fewer than were asked for, and the record says why. A counter that strays again and again is broken.

    Raises:
        ImplausibleError: half of the windows or more are invalid for that source.
    """
    reasons = [window["invalid"][source] for window in windows if source in window["invalid"]]
    if 2 * len(reasons) >= len(windows):
        raise ImplausibleError(f"{len(reasons)} of {len(windows)} energy windows are invalid; {source}: {reasons[0]}")


def idle_W(windows: Windows, seconds: float) -> dict[str, float]:
    """Power by source while this process sleeps, with the model loaded; without those whose window is invalid."""

    def sleep() -> None:
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            time.sleep(min(left, 0.25))
            windows.poll()

    took, joules, _ = windows.over(sleep)
    return {name: value / took for name, value in joules.items()}
