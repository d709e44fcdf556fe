"""Devices: which there are, and the fence that makes a measured time true."""

from __future__ import annotations

from typing import Any

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


def select(name: str) -> torch.device:
    """The torch device of that name, made the current one: events and new streams belong to the current device."""
    device = parse(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def gpu_identity(device: torch.device) -> dict[str, str]:
    """Name and UUID of the GPU behind a device name, which depends on CUDA_VISIBLE_DEVICES; nothing for a CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {"gpu": properties.name, "gpu_uuid": str(properties.uuid)}


def software() -> dict[str, Any]:
    """How torch was built and what it may use here: CUDA, cuDNN, BLAS, vector instructions, arithmetic."""
    built = torch.__config__.show().splitlines()[1:]
    return {
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        "onednn": torch.backends.mkldnn.is_available(),
        "openmp": torch.backends.openmp.is_available(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32_in_cudnn": torch.backends.cudnn.allow_tf32,
        "build": [line.strip(" -") for line in built if "Build settings" not in line],
    }


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all work given to it; on CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # kernels are only queued when a call returns
