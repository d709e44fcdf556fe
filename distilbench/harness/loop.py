"""The measuring loop: whole cycles until the warm-up is proven, then until the median is known. No torch here."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Protocol

from distilbench.collectors.telemetry import Telemetry
from distilbench.errors import ImplausibleError
from distilbench.stats import converged, half_width

Row = dict[str, Any]
FORWARD = "forward"


class Clock(Protocol):
    """Times a piece of work (see `collectors.latency`)."""

    def time(self, work: Callable[[], Any]) -> tuple[float, float | None, Any]:
        """(host ms, device ms, result)."""


class Loop:
    """Times the forwards of a cycle, each as one iteration, cycle after cycle.

    Args:
        protocol: the bounds of warm-up and of timing (`params.SweepParams`).
        steps: what one cycle does, in order: a forward over each batch.
        samples: sentences in each of them.

    Attributes:
        rows: every iteration so far, as the iterations file holds them.
        results: of the first timed cycle.
    """

    def __init__(
        self,
        protocol: dict[str, Any],
        steps: list[Callable[[], Any]],
        samples: list[int],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.protocol, self.steps, self.samples = protocol, steps, samples
        self.clock, self.telemetry = clock, telemetry
        self.rows: list[Row] = []
        self.results: list[Any] = []

    def warm_up(self) -> dict[str, Any]:
        """Cycles until two half-windows agree, within floor and cap; returns the record's `warmup`.

        A cap of 0 asks for no proof: the floors alone count.
        """
        protocol, cycles = self.protocol, []
        spent_s, next_test = 0.0, 0
        while True:
            cycles.append(self._cycle(len(cycles), warmup=True))
            spent_s += sum(cycles[-1]) / 1e3
            if len(cycles) < protocol["warmup_cycles"] or spent_s < protocol["warmup_seconds"]:
                continue
            at_cap = spent_s >= protocol["warmup_max_seconds"]
            if len(cycles) < next_test and not at_cap:
                continue
            next_test = len(cycles) * 1.1  # the test itself takes time, which no cycle counts, and lets the chip cool
            done = converged(cycles) if protocol["warmup_max_seconds"] else None
            if done is not False or at_cap:
                return {"cycles": len(cycles), "seconds": spent_s, "settled": done}

    def measure(self) -> None:
        """Timed cycles until all floors are met and the median is known to `half_width`, or the cap is."""
        protocol, before = self.protocol, self.rows[-1]["cycle"] + 1 if self.rows else 0
        medians: list[float] = []
        iterations, spent_s = 0, 0.0
        while True:
            times = self._cycle(before + len(medians), warmup=False)
            medians.append(median(times))  # of whole cycles: single iterations resemble the one before them
            iterations, spent_s = iterations + len(times), spent_s + sum(times) / 1e3
            if (
                len(medians) < protocol["min_cycles"]
                or iterations < protocol["min_iterations"]
                or spent_s < protocol["min_seconds"]
            ):
                continue
            width = half_width(medians)
            if (width is not None and width <= protocol["half_width"]) or spent_s >= protocol["max_seconds"]:
                return

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Around a reading of the machine, between cycles; a device that rests by then is given untimed work."""
        yield

    def _cycle(self, cycle: int, warmup: bool) -> list[float]:
        """One pass over the steps, every iteration kept; returns its times in ms.

        Raises:
            ImplausibleError: the clock stands still, goes back or says no number: the loop would never end.
        """
        # faults are read around a cycle: once a cycle is enough to see memory that is taken anew each time
        results, first, faults = [], len(self.rows), _page_faults()
        for batch, (step, samples) in enumerate(zip(self.steps, self.samples, strict=True)):
            host_ms, device_ms, result = self.clock.time(step)
            results.append(result)
            self.rows.append(
                {
                    "kind": FORWARD, "cycle": cycle, "batch": batch, "warmup": warmup, "samples": samples,
                    "latency_ms": host_ms, "latency_device_ms": device_ms,
                }
            )  # fmt: skip
        self.rows[-1]["page_faults"] = None if faults is None else _page_faults() - faults
        self.results = self.results or ([] if warmup else results)
        if self.telemetry.due():  # only here: a reading within a cycle would cool the caches of the next iteration
            with self.under_load():
                self.rows[-1] |= self.telemetry.block()
        times = [row["latency_ms"] for row in self.rows[first:]]
        if not 0 < sum(times) < math.inf:
            raise ImplausibleError(f"a cycle of {len(times)} iterations took {sum(times)} ms by its clock")
        return times


def _page_faults() -> int | None:
    """Pages that this process has got from the system since its start (getrusage(2), ru_minflt).

    None where they are not counted: no process starts without a fault.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt or None


def slowed(forward: Callable[..., Any], share: float, fence: Callable[[], None] = lambda: None) -> Callable[..., Any]:
    """For calibration: a forward that takes `share` of its own time longer, busily: a core at rest wakes up slower.

    Args:
        fence: waits until the forward is done, where it returns earlier.
    """

    def forward_and_wait(*pair: Any) -> Any:
        start = time.perf_counter_ns()
        result = forward(*pair)
        fence()
        until = start + (time.perf_counter_ns() - start) * (1 + share)
        while time.perf_counter_ns() < until:
            pass
        return result

    return forward_and_wait
