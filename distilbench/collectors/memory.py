"""Peak memory, in a process of its own: resident memory of the host, and what torch allocated on the GPU."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import torch

NO_CUDA = "the model ran on the CPU"
MiB = 2**20


def peak_rss_MiB() -> float:
    """Highest resident memory of this process so far.

    /proc's VmHWM belongs to this program alone. getrusage's ru_maxrss, the fallback, is inherited across exec on
    Linux: a small child of a large parent would report the parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return _status_kib(status.read_text(), "VmHWM") / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MiB


def rss_MiB() -> float:
    """Resident memory of this process now."""
    import psutil

    return psutil.Process().memory_info().rss / MiB


def _status_kib(status: str, field: str) -> int:
    """A field of /proc/self/status, in KiB."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:"))


def reset_cuda_peaks(device: torch.device, cuda: Any = torch.cuda) -> None:
    """Forgets the peaks so far, after waiting for work that would still raise them."""
    if device.type == "cuda":
        cuda.synchronize(device)
        cuda.reset_peak_memory_stats(device)


def cuda_peaks_MiB(device: torch.device, cuda: Any = torch.cuda) -> tuple[float, float] | None:
    """(allocated, reserved) peaks since the reset; None on CPU."""
    if device.type != "cuda":
        return None
    cuda.synchronize(device)
    return cuda.max_memory_allocated(device) / MiB, cuda.max_memory_reserved(device) / MiB
