"""Time of one forward: the host's monotonic clock, and on CUDA two events on the device's stream as well."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class HostClock:
    """Times work that is done when the call returns (CPU)."""

    def time(self, work: Callable[[], Any]) -> tuple[float, None, Any]:
        """Runs `work` once; returns (host ms, None, its result)."""
        start = time.perf_counter_ns()  # monotonic: the wall clock may be set while this runs
        result = work()
        return (time.perf_counter_ns() - start) / 1e6, None, result


class CudaClock:
    """Times work that the device does after the call has returned.

    A fence before the first reading keeps earlier work out, one before the last reading keeps this work in; without
    them the host's clock measures how fast kernels are queued. The events give the device's own view: from the first
    kernel to the last, gaps included where the host launches more slowly than the device works.
    """

    def __init__(self, device: torch.device, cuda: Any = None) -> None:
        if cuda is None:
            from torch import cuda
        self.device, self.cuda = device, cuda
        # made once: an event that is made anew for each forward would be made within the time
        self.start, self.end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)

    def time(self, work: Callable[[], Any]) -> tuple[float, float, Any]:
        """Runs `work` once; returns (host ms, device ms, its result)."""
        self.cuda.synchronize(self.device)
        start = time.perf_counter_ns()
        self.start.record()
        result = work()
        self.end.record()  # queued behind the work, on the same stream: it stands for the last kernel
        self.cuda.synchronize(self.device)
        host_ms = (time.perf_counter_ns() - start) / 1e6
        return host_ms, self.start.elapsed_time(self.end), result


def clock_for(device: torch.device) -> HostClock | CudaClock:
    """The clock that is true on this device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()
