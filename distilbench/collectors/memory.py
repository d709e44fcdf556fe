"""Peak memory by phase, in a process of its own: resident memory of the host, and what torch allocated on the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distilbench.collectors.nvml import Gpu
from distilbench.errors import DeviceError
from distilbench.machine import cgroups

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
NO_CUDA = "the model ran on the CPU"
MiB = 2**20
PAGE = 4096  # bytes; larger pages are touched more than once


def peak_rss_MiB() -> float:
    """Highest resident memory of this process so far.

    Not getrusage's ru_maxrss, which is inherited across exec: a small child of a large parent would report the parent.
    """
    return _status_MiB("VmHWM")


def rss_MiB() -> float:
    """Resident memory of this process now; from the same file as the peak, so that the two can be compared."""
    return _status_MiB("VmRSS")


def _status_MiB(field: str) -> float:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def reset_peak_rss() -> bool:
    """Lowers the peak to what is resident now; False where the kernel does not let us (proc_pid_clear_refs(5))."""
    try:
        CLEAR_REFS.write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def touch(module: torch.nn.Module) -> None:
    """Reads one value of every page of the weights, without a copy.

    A safetensors file is mapped, so that weights become resident only when they are first used: without this the first
    forward would seem to need the model's size.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu":
            flat = tensor.detach().reshape(-1)
            flat[:: PAGE // flat.element_size()].sum()


class Phases:
    """Peaks between marks: `mark` tells the peak since the mark before it, and starts the next phase.

    Attributes:
        peaks_rss_MiB: by phase; empty where the kernel's peak cannot be reset.
        peaks_cuda_MiB: by phase, allocated; empty on a CPU.
        highest_rss_MiB: over all phases.
        highest_cuda_MiB: (allocated, reserved) over all phases, None on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.started_rss_MiB, self.highest_rss_MiB = rss_MiB(), peak_rss_MiB()
        self.peaks_rss_MiB: dict[str, float] = {}
        self.peaks_cuda_MiB: dict[str, float] = {}
        self.highest_cuda_MiB: tuple[float, float] | None = None
        self.separate = reset_peak_rss()
        reset_cuda_peaks(device)
        self.cgroup = cgroups.PeakMemory()

    def mark(self, phase: str) -> None:
        """Ends a phase."""
        peak, cuda = peak_rss_MiB(), cuda_peaks_MiB(self.device)
        self.highest_rss_MiB = max(self.highest_rss_MiB, peak)
        if self.separate:
            self.peaks_rss_MiB[phase] = peak
            reset_peak_rss()  # after the peak was kept in `highest_rss_MiB`, since the kernel forgets it
        if cuda:
            self.peaks_cuda_MiB[phase] = cuda[0]
            before = self.highest_cuda_MiB or cuda
            self.highest_cuda_MiB = max(before[0], cuda[0]), max(before[1], cuda[1])
            reset_cuda_peaks(self.device)


def split(
    phases: Phases, loaded_rss_MiB: float, loaded_cuda_MiB: float | None, gpu: Gpu | None, no_gpu: str | None
) -> dict[str, Any]:
    """The record's `memory` (`records.MemorySplit`)."""
    fields: dict[str, Any] = {
        "started_rss_MiB": phases.started_rss_MiB,
        "loaded_rss_MiB": loaded_rss_MiB,
        "loaded_cuda_MiB": loaded_cuda_MiB,
        "phases_reason": None if phases.separate else f"{CLEAR_REFS} cannot be written: the peak cannot be reset",
        "nvml_reason": no_gpu,
        "cgroup_reason": phases.cgroup.reason,
    }
    for unit, peaks, loaded in (
        ("rss", phases.peaks_rss_MiB, loaded_rss_MiB), ("cuda", phases.peaks_cuda_MiB, loaded_cuda_MiB)
    ):  # fmt: skip
        fields |= {f"{phase}_peak_{unit}_MiB": peak for phase, peak in peaks.items()}
        if peaks:  # what a forward needs beside the weights, which `touch` made resident before this was read
            fields[f"delta_{unit}_MiB"] = max(peaks["first"], peaks["steady"]) - loaded
    if (peak := phases.cgroup.bytes()) is not None:
        fields["cgroup_peak_MiB"] = peak / MiB
    if gpu:
        try:
            fields["nvml_process_MiB"], fields["nvml_device_MiB"] = gpu.memory_MiB()
            if fields["nvml_process_MiB"] is None:
                fields["nvml_reason"] = "NVML does not list this process (a container hides it or shows another number)"
        except DeviceError as error:
            fields["nvml_reason"] = str(error)
    return fields


def cuda_allocated_MiB(device: torch.device, cuda: Any = torch.cuda) -> float | None:
    """What torch has allocated on the device now; None on a CPU."""
    return cuda.memory_allocated(device) / MiB if device.type == "cuda" else None


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
