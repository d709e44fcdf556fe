"""One GPU as NVML sees it, found by the UUID of torch's device: its index may be another one to NVML than to torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distilbench.errors import DeviceError

MiB = 2**20


class Gpu:
    """Readings of one GPU; a reading that the driver or the site refuses raises DeviceError with the reason.

    Args:
        uuid: as torch.cuda.get_device_properties(...).uuid gives it, with or without "GPU-" or "MIG-" in front.
        nvml: the pynvml module; another one in tests.

    Raises:
        DeviceError: NVML cannot be used, or knows no such GPU.
    """

    def __init__(self, uuid: str, nvml: Any = None) -> None:
        if nvml is None:
            try:
                import pynvml as nvml
            except ImportError:
                raise DeviceError("nvidia-ml-py is not installed (extra `run`)") from None
        self.nvml, self.uuid = nvml, uuid
        self._ask("nvmlInit", nvml.nvmlInit)
        self.handle = self._find(uuid)
        self.mig = self._is_mig()

    def _find(self, uuid: str) -> Any:
        bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
        reasons = []
        for name in (f"GPU-{bare}", f"MIG-{bare}"):
            try:
                return self.nvml.nvmlDeviceGetHandleByUUID(name)
            except self.nvml.NVMLError as error:
                reasons.append(f"{name}: {error}")
        raise DeviceError(f"NVML knows no GPU with the UUID {uuid} ({'; '.join(reasons)})")

    def _is_mig(self) -> bool:
        """Whether this is a part of a GPU, or a GPU that is cut into parts."""
        try:
            part = self.nvml.nvmlDeviceIsMigDeviceHandle(self.handle)
            return bool(part or self.nvml.nvmlDeviceGetMigMode(self.handle)[0])
        except self.nvml.NVMLError:  # a GPU that knows no MIG
            return False

    def _ask(self, what: str, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except self.nvml.NVMLError as error:
            raise DeviceError(f"NVML, {what}: {error}") from error

    def energy_J(self) -> float:
        """Joules since the driver was loaded (Volta and newer; updated every 20 to 100 ms)."""
        self.refuse_part()
        return self._ask("total energy", self.nvml.nvmlDeviceGetTotalEnergyConsumption, self.handle) / 1e3

    def power_W(self) -> float:
        """Power now, as the driver averages it."""
        self.refuse_part()
        return self._ask("power", self.nvml.nvmlDeviceGetPowerUsage, self.handle) / 1e3

    def power_limit_W(self) -> float | None:
        """The power limit that is enforced; None where the driver does not tell."""
        with suppress(DeviceError):
            return self._ask("power limit", self.nvml.nvmlDeviceGetEnforcedPowerLimit, self.handle) / 1e3
        return None

    def refuse_part(self) -> None:
        """Raises where energy would be that of other users too."""
        if self.mig:
            raise DeviceError("MIG is on: the counters are those of the whole GPU, not of this part of it")

    def memory_MiB(self) -> tuple[float | None, float]:
        """(this process, the whole device); a container may hide the processes, then the first is None."""
        device = self._ask("memory", self.nvml.nvmlDeviceGetMemoryInfo, self.handle).used / MiB
        own = [process.usedGpuMemory for process in self._processes() if process.pid == os.getpid()]
        return (own[0] / MiB if own and own[0] else None), device

    def foreign_processes(self) -> int | None:
        """Other processes that compute on the GPU; None where this one, which does, is not listed under its number.

        In a container the driver may show the host's numbers, or none: then nobody can be told from this process.
        """
        pids = {process.pid for process in self._processes()}
        return len(pids - {os.getpid()}) if os.getpid() in pids else None

    def _processes(self) -> list[Any]:
        return self._ask("processes", self.nvml.nvmlDeviceGetComputeRunningProcesses, self.handle)

    def state(self) -> dict[str, float | int | None]:
        """Clock, temperature, power, throttle reasons (a bit mask, nvml.h) and neighbours; None for what is refused."""
        nvml = self.nvml
        readings: dict[str, Callable[[], Any]] = {
            "gpu_sm_MHz": lambda: nvml.nvmlDeviceGetClockInfo(self.handle, nvml.NVML_CLOCK_SM),
            "gpu_temperature_C": lambda: nvml.nvmlDeviceGetTemperature(self.handle, nvml.NVML_TEMPERATURE_GPU),
            "gpu_power_W": lambda: nvml.nvmlDeviceGetPowerUsage(self.handle) / 1e3,
            "gpu_throttle_reasons": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle),
            "gpu_foreign_processes": self.foreign_processes,
        }
        state: dict[str, float | int | None] = dict.fromkeys(readings)
        for name, reading in readings.items():
            with suppress(nvml.NVMLError, DeviceError):
                state[name] = reading()
        return state


def gpu_of(identity: dict[str, str]) -> tuple[Gpu | None, str | None]:
    """The GPU with the UUID of `device.gpu_identity`, or why there is none."""
    if "gpu_uuid" not in identity:
        return None, "the model ran on the CPU"
    try:
        return Gpu(identity["gpu_uuid"]), None
    except DeviceError as error:
        return None, str(error)
