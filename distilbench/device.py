"""Devices: which there are, and the fence that makes a measured time true."""

from __future__ import annotations

import os

import torch

from distilbench.errors import DeviceError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def available() -> list[str]:
    """All devices that can be named here."""
    return ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]


def cuda_version() -> str | None:
    """The CUDA version that torch was built for; None for a CPU build."""
    return torch.version.cuda


def parse(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        DeviceError: it is not there; the message lists those that are.
    """
    name = "cuda:0" if name == "cuda" else name
    if name not in (known := available()):
        why = ""
        if name.startswith("cuda") and not torch.cuda.is_available():
            why = (
                f" torch {torch.__version__} was built without CUDA."
                if torch.version.cuda is None
                else f" torch was built for CUDA {torch.version.cuda} but finds no usable GPU or driver."
            )
        raise DeviceError(f"there is no device {name!r} here.{why} Devices: {', '.join(known)}.")
    return torch.device(name)


def usable_cores() -> int:
    """CPU cores that this process may use (affinity, not the machine's count)."""
    return len(os.sched_getaffinity(0))


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all work given to it; on CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
