"""One GPU as NVML shows it, over a recorded machine: found by its UUID, read, and refused where readings mislead."""

from __future__ import annotations

import ctypes
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from distilbench.collectors.nvml import Gpu, gpu_of
from distilbench.errors import DeviceError

UUIDS = [f"b8f5c3a{index}-41d2-6f7e-9c1a-0e5d7b3a2f1{index}" for index in range(4)]
PART = "5c2e1d0f-7a3b-5c4d-8e6f-1a2b3c4d5e6f"
NO_PERMISSION, NOT_SUPPORTED = "Insufficient Permissions", "Not Supported"


def process(pid: int, MiB: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=None if MiB is None else MiB * 2**20)


class RecordedNvml(ModuleType):
    """The pynvml module on a machine of four GPUs, one of which is cut into parts; the handle is the UUID itself.

    Args:
        fails: what a function says instead of answering, by its name.
        mig: GPUs in MIG mode, by UUID.
        processes: what computes on any of the GPUs.
    """

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def __init__(self, fails: dict[str, str] | None = None, mig: tuple[str, ...] = (), processes: tuple = ()) -> None:
        super().__init__("pynvml")
        self.fails, self.mig, self.processes, self.calls = fails or {}, mig, processes, []
        self.energy_mJ = {f"GPU-{uuid}": 1_000_000 * (index + 1) for index, uuid in enumerate(UUIDS)}
        self.power_mW = {f"GPU-{uuid}": 68_432 + 100_000 * index for index, uuid in enumerate(UUIDS)}

    def _answer(self, name: str, handle: str, value: object) -> object:
        self.calls.append((name, handle))
        if name in self.fails:
            raise self.NVMLError(self.fails[name])
        return value

    def nvmlInit(self) -> None:
        self._answer("nvmlInit", "", None)

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        if name not in [*self.energy_mJ, f"MIG-{PART}"]:
            raise self.NVMLError("Not Found")
        return self._answer("nvmlDeviceGetHandleByUUID", name, name)

    def nvmlDeviceIsMigDeviceHandle(self, handle: str) -> ctypes.c_uint:
        """The real one forgets `.value` too."""
        return self._answer("nvmlDeviceIsMigDeviceHandle", handle, ctypes.c_uint(handle.startswith("MIG-")))

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        return self._answer("nvmlDeviceGetMigMode", handle, [int(handle.removeprefix("GPU-") in self.mig), 0])

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self._answer("nvmlDeviceGetTotalEnergyConsumption", handle, self.energy_mJ.get(handle))

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return self._answer("nvmlDeviceGetPowerUsage", handle, self.power_mW.get(handle))

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        memory = SimpleNamespace(total=81920 * 2**20, free=80896 * 2**20, used=1024 * 2**20)
        return self._answer("nvmlDeviceGetMemoryInfo", handle, memory)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return self._answer("nvmlDeviceGetComputeRunningProcesses", handle, list(self.processes))

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return self._answer("nvmlDeviceGetClockInfo", handle, {0: 345, self.NVML_CLOCK_SM: 1980}[kind])

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return self._answer("nvmlDeviceGetTemperature", handle, {self.NVML_TEMPERATURE_GPU: 41}[sensor])

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self._answer("nvmlDeviceGetCurrentClocksThrottleReasons", handle, 0x24)


OWN, OTHERS = process(os.getpid(), 512), (process(1, 300), process(2, None))

# ------------------------------------------------------------------ finding it


def test_without_the_library_the_reason_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DeviceError, match=r"^nvidia-ml-py is not installed \(extra `run`\)$"):
        Gpu(UUIDS[0])


def test_without_a_driver_the_reason_is_nvmls():
    with pytest.raises(DeviceError, match=r"^NVML, nvmlInit: Driver Not Loaded$"):
        Gpu(UUIDS[0], RecordedNvml({"nvmlInit": "Driver Not Loaded"}))


def test_the_installed_library_is_used_when_none_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml())
    assert Gpu(UUIDS[1]).energy_J() == 2000


def test_nvml_is_started_before_it_is_asked():
    nvml = RecordedNvml()
    Gpu(UUIDS[0], nvml)
    assert nvml.calls[0] == ("nvmlInit", "")


def test_among_four_gpus_torchs_own_is_read(monkeypatch):
    """With CUDA_VISIBLE_DEVICES=2 torch calls it cuda:0, NVML still 2."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    nvml = RecordedNvml()
    gpu = Gpu(UUIDS[2], nvml)
    assert (gpu.energy_J(), gpu.power_W()) == (3000, 268.432)
    assert {handle for _, handle in nvml.calls} == {"", f"GPU-{UUIDS[2]}"}, "no other GPU is asked anything"


@pytest.mark.parametrize("prefix", ["", "GPU-"])
def test_a_uuid_is_known_with_and_without_its_prefix(prefix):
    gpu = Gpu(prefix + UUIDS[3], RecordedNvml())
    assert (gpu.handle, gpu.mig) == (f"GPU-{UUIDS[3]}", False)


@pytest.mark.parametrize("prefix", ["", "MIG-"])
def test_a_part_of_a_gpu_is_found_by_its_own_uuid(prefix):
    gpu = Gpu(prefix + PART, RecordedNvml())
    assert (gpu.handle, gpu.mig) == (f"MIG-{PART}", True)


def test_an_unknown_uuid_is_named():
    with pytest.raises(DeviceError, match=r"UUID GPU-absent \(GPU-absent: Not Found; MIG-absent: Not Found\)$"):
        Gpu("GPU-absent", RecordedNvml())


# ------------------------------------------------------------------ energy and power


def refusal(reading: str, uuid: str, nvml: RecordedNvml) -> str:
    with pytest.raises(DeviceError) as refused:
        getattr(Gpu(uuid, nvml), reading)()
    return str(refused.value)


@pytest.mark.parametrize("reading", ["energy_J", "power_W"])
@pytest.mark.parametrize(("uuid", "mig"), [(UUIDS[1], (UUIDS[1],)), (PART, ())], ids=["mode", "part"])
def test_a_gpu_that_is_cut_into_parts_is_refused_for_energy(reading, uuid, mig):
    nvml = RecordedNvml(mig=mig)
    assert refusal(reading, uuid, nvml).startswith("MIG is on: the counters are those of the whole GPU")
    assert not {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"} & {name for name, _ in nvml.calls}


def test_mig_on_another_gpu_does_not_matter():
    assert Gpu(UUIDS[0], RecordedNvml(mig=(UUIDS[1],))).energy_J() == 1000


def test_a_gpu_that_knows_no_mig_has_no_parts():
    gpu = Gpu(UUIDS[0], RecordedNvml({"nvmlDeviceGetMigMode": NOT_SUPPORTED}))
    assert (gpu.mig, gpu.energy_J()) == (False, 1000)


@pytest.mark.parametrize(
    ("reading", "function", "what"),
    [
        ("energy_J", "nvmlDeviceGetTotalEnergyConsumption", "total energy"),
        ("power_W", "nvmlDeviceGetPowerUsage", "power"),
        ("memory_MiB", "nvmlDeviceGetMemoryInfo", "memory"),
        ("memory_MiB", "nvmlDeviceGetComputeRunningProcesses", "processes"),
        ("foreign_processes", "nvmlDeviceGetComputeRunningProcesses", "processes"),
    ],
)
def test_what_the_site_forbids_is_said_with_nvmls_reason(reading, function, what):
    assert refusal(reading, UUIDS[0], RecordedNvml({function: NO_PERMISSION})) == f"NVML, {what}: {NO_PERMISSION}"


# ------------------------------------------------------------------ memory and neighbours


@pytest.mark.parametrize(
    ("processes", "own_MiB"),
    [
        ((*OTHERS, OWN), 512),
        (OTHERS, None),
        ((process(os.getpid(), None),), None),
        ((process(os.getpid(), 0),), None),
        ((), None),
    ],
    ids=["seen", "hidden in a container", "without its memory", "with none", "alone"],
)
def test_memory_of_this_process_is_known_or_none(processes, own_MiB):
    assert Gpu(UUIDS[0], RecordedNvml(processes=processes)).memory_MiB() == (own_MiB, 1024)


@pytest.mark.parametrize(("processes", "count"), [((OWN,), 0), ((OTHERS[0], OWN, OTHERS[1]), 2)])
def test_other_processes_are_counted(processes, count):
    assert Gpu(UUIDS[0], RecordedNvml(processes=processes)).foreign_processes() == count


@pytest.mark.parametrize("processes", [(), OTHERS], ids=["nobody is shown", "under the host's numbers"])
def test_where_this_process_is_not_listed_nobody_is_counted(processes):
    """It computes on the GPU: a list without it, as containers show, says nothing of others."""
    assert Gpu(UUIDS[0], RecordedNvml(processes=processes)).foreign_processes() is None


# ------------------------------------------------------------------ state

STATE = {
    "gpu_sm_MHz": 1980,
    "gpu_temperature_C": 41,
    "gpu_power_W": 68.432,
    "gpu_throttle_reasons": 0x24,
    "gpu_foreign_processes": 2,
}


def test_the_state_holds_all_readings():
    assert Gpu(UUIDS[0], RecordedNvml(processes=(*OTHERS, OWN))).state() == STATE


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetClockInfo", "gpu_sm_MHz"),
        ("nvmlDeviceGetTemperature", "gpu_temperature_C"),
        ("nvmlDeviceGetPowerUsage", "gpu_power_W"),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", "gpu_throttle_reasons"),
        ("nvmlDeviceGetComputeRunningProcesses", "gpu_foreign_processes"),
    ],
)
def test_a_reading_that_is_refused_is_none_and_the_others_stay(function, field):
    gpu = Gpu(UUIDS[0], RecordedNvml({function: NOT_SUPPORTED}, processes=(*OTHERS, OWN)))
    assert gpu.state() == STATE | {field: None}


# ------------------------------------------------------------------ the GPU behind torch's device


def test_a_cpu_has_no_gpu():
    assert gpu_of({}) == (None, "the model ran on the CPU")


def test_torchs_gpu_is_found_by_its_uuid(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml())
    gpu, why = gpu_of({"gpu": "NVIDIA H100", "gpu_uuid": UUIDS[3]})
    assert (gpu.energy_J(), why) == (4000, None)


def test_a_gpu_that_nvml_does_not_know_is_none_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml())
    assert gpu_of({"gpu_uuid": "absent"}) == (
        None,
        "NVML knows no GPU with the UUID absent (GPU-absent: Not Found; MIG-absent: Not Found)",
    )
