"""Where the time of a step goes: on the host's clock, or on the GPU's."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from distilbench.machine.device import synchronize
from distilbench.training.steps import PHASES


class StepClock:
    """Marks the ends of a step's phases; a phase that comes more than once is added up.

    On a GPU marks are events in its queue, so that no phase waits for the one before: one fence, at the step's end.

    Args:
        events: makes an event of a GPU; None: there is none.
    """

    def __init__(self, device: torch.device, events: Any = None) -> None:
        self.device = device
        self.event = events or ((lambda: torch.cuda.Event(enable_timing=True)) if device.type == "cuda" else None)
        self.reduced: list[tuple[Any, Any]] = []
        self.start()

    def start(self) -> None:
        """A step begins."""
        self.started_ns = time.perf_counter_ns()
        self.marks: list[tuple[str, Any]] = [("", self.now())]
        self.reduced = []

    def now(self) -> Any:
        """This moment, on the clock that times the device."""
        if self.event is None:
            return time.perf_counter_ns()
        event = self.event()
        event.record()
        return event

    def mark(self, phase: str) -> None:
        """A phase ends."""
        self.marks.append((phase, self.now()))

    def end(self) -> dict[str, float]:
        """What the step took, in ms: each phase, all-reduce (which runs beside the backward pass), and all of it.

        `allreduce_start_ms` is from the step's start to the first gradient under way.
        """
        synchronize(self.device)
        spent = dict.fromkeys(PHASES, 0.0)
        for (_, before), (phase, after) in zip(self.marks, self.marks[1:], strict=False):
            spent[phase] += self._ms(before, after)
        first = self.marks[0][1]
        spans = sorted((self._ms(first, begun), self._ms(first, ended)) for begun, ended in self.reduced)
        return {f"{name}_ms": ms for name, ms in spent.items()} | {
            "allreduce_ms": _covered(spans),
            "allreduce_start_ms": spans[0][0] if spans else 0.0,
            "step_ms": self._ms(first, self.marks[-1][1]),
        }

    def _ms(self, before: Any, after: Any) -> float:
        return (after - before) / 1e6 if self.event is None else before.elapsed_time(after)

    def watch(self, parallel: Any) -> None:
        """Times the all-reduce of each bucket of gradients of a model that is wrapped for many processes."""

        def hook(group, bucket):  # torch compares annotations, and a postponed one is text
            begun = self.now()

            def ended(future: torch.futures.Future) -> torch.Tensor:
                self.reduced.append((begun, self.now()))
                return future.value()

            return allreduce_hook(group, bucket).then(ended)

        parallel.register_comm_hook(None, hook)


def _covered(spans: list[tuple[float, float]]) -> float:
    """How long at least one of these sorted spans lasted: buckets overlap."""
    total, until = 0.0, float("-inf")
    for begun, ended in spans:
        total += max(0.0, ended - max(begun, until))
        until = max(until, ended)
    return total
