"""The time of each layer, by hooks, in forwards that no profiler watches.

Not under torch.profiler: its cost falls on each call of an operator, so that a layer of many small ones would seem
longer than one of few large ones. A hook costs the same at each layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.nn import Module, ModuleList

from distilbench.measurements.profiling.summary.derive import OUTSIDE


def layers_of(module: Module) -> list[tuple[str, Module]]:
    """The layers of a model, by name: together they are all of it, and none holds another.

    The elements of a list of modules (the blocks of a transformer) are layers, and so is what stands beside such a list
    on the way to it: embeddings, norms, heads.
    """
    found = [layer for name, child in module.named_children() for layer in _below(name, child)]
    return found or [(type(module).__name__, module)]


def _below(name: str, module: Module) -> list[tuple[str, Module]]:
    if isinstance(module, ModuleList):
        return [(f"{name}.{number}", child) for number, child in module.named_children()]
    if not any(isinstance(one, ModuleList) for one in module.modules()):
        return [(name, module)]
    return [layer for inner, child in module.named_children() for layer in _below(f"{name}.{inner}", child)]


class HostMarks:
    """Points in time on a CPU, where a layer is done when its call returns."""

    def mark(self) -> int:
        """Now, in ns."""
        return time.perf_counter_ns()

    def finish(self) -> None:
        """Nothing is queued."""

    def span_ms(self, start: int, end: int) -> float:
        """Between two points."""
        return (end - start) / 1e6


class CudaMarks:
    """Points in a GPU's stream. No fence stands at a layer: it would drain the queue, and each layer would wait."""

    def __init__(self, device: torch.device, cuda: Any = None) -> None:
        self.device, self.cuda = device, cuda or torch.cuda

    def mark(self) -> Any:
        """An event, queued behind the work so far."""
        event = self.cuda.Event(enable_timing=True)
        event.record()
        return event

    def finish(self) -> None:
        """Waits for the last event: none has a time before."""
        self.cuda.synchronize(self.device)

    def span_ms(self, start: Any, end: Any) -> float:
        """Between two points."""
        return start.elapsed_time(end)


def marks_for(device: torch.device) -> HostMarks | CudaMarks:
    """The points in time that are true on this device."""
    return CudaMarks(device) if device.type == "cuda" else HostMarks()


def timed(module: Module, forward: Callable[[], Any], marks: HostMarks | CudaMarks) -> dict[str, float]:
    """One forward: milliseconds of each layer that ran, in order, and of what lies outside of them.

    Every moment between its first mark and its last belongs to one of these, so their sum is the forward with hooks.
    """
    seen: list[tuple[str, Any]] = []  # from this point on, what runs

    def starts(name: str) -> Callable[..., None]:
        return lambda *_: seen.append((name, marks.mark()))

    def ends(*_: Any) -> None:
        seen.append((OUTSIDE, marks.mark()))

    handles = []
    for name, layer in layers_of(module):
        handles += [layer.register_forward_pre_hook(starts(name)), layer.register_forward_hook(ends)]
    try:
        marks.finish()  # what was queued before is no part of the first layer
        ends()
        forward()
        ends()
        marks.finish()
    finally:
        for handle in handles:
            handle.remove()
    spent: dict[str, float] = {}
    for (name, start), (_, end) in pairwise(seen):
        spent[name] = spent.get(name, 0.0) + marks.span_ms(start, end)
    return spent
