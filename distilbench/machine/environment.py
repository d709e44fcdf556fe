"""What a run was made on: machine, software, git, SLURM. No torch; what cannot be read is null, never guessed."""

from __future__ import annotations

import math
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from distilbench import paths
from distilbench.errors import DeviceError
from distilbench.machine import cgroups, code, slurm_job
from distilbench.machine.kernel_files import text_of

SYS = Path("/sys")
PACKAGES = (
    "distilbench", "torch", "transformers", "tokenizers", "datasets", "huggingface_hub", "safetensors", "peft",
    "numpy", "pandas", "pyarrow", "pydantic", "papermill", "nvidia-ml-py",
)  # fmt: skip
SLURM = ("SLURM_JOB", "SLURM_CPU", "SLURM_MEM", "SLURM_NODE", "SLURM_GPUS", "SLURM_CLUSTER", "SLURM_ARRAY")
#: Beginnings of the variables that change threads, memory or arithmetic of what is measured.
VARIABLES = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "NVPL_", "ARMPL_", "NUMEXPR_",
    "RAYON_", "TOKENIZERS_PARALLELISM", "DNNL_", "ONEDNN_", "ATEN_", "TORCH_COMPILE", "TORCH_MKLDNN_",
    "TORCHDYNAMO_", "TORCHINDUCTOR_", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE",
    "PYTHONMALLOC", "PYTHONTRACEMALLOC", "LD_AUDIT", "LD_LIBRARY_PATH",
)  # fmt: skip
VARIABLES_OF_GPUS = (
    "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_", "CUBLASLT_", "CUDNN_",
    "TORCH_CUDNN_", "TORCH_ALLOW_TF32_", "NVIDIA_TF32_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING", "PYTORCH_TUNABLEOP_",
)  # fmt: skip
#: What libraries set in their own process when they are imported (scikit-learn, torch): nobody chose it.
SET_BY_LIBRARIES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR")
#: Recorded, but no condition of a comparison: a worker gets its own of the first two, and batch systems put folders of
#: a job into the last.
NO_CONDITION = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LD_LIBRARY_PATH")
#: Parts of the names of variables by which threads are limited or bound to cores.
OF_THREADS = ("THREAD", "DYNAMIC", "AFFINITY", "BIND", "PLACES", "SUBSET", "NESTED", "MAX_ACTIVE_LEVELS")
ISA_FLAGS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8",
)  # fmt: skip


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def capture() -> dict[str, Any]:
    """Everything about this machine and installation that env.json records."""
    job, why_no_job = slurm_job.read()
    return {
        "schema_version": 1,
        "captured": now(),
        "host": {"name": socket.gethostname(), "os": platform.platform(), "kernel": platform.release()},
        "cpu": cpu(),
        "tuning": tuning(),
        "container": container(),
        "memory_MiB": round(psutil.virtual_memory().total / 2**20),
        "cgroup": cgroups.limits(),
        "gpus": gpus()[0],
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "packages": packages(),
        "lock_sha256": lock_sha256(),
        "code_sha256": code.code_sha256(),
        "measuring_sha256": code.measuring_sha256(),
        "git": git(),
        "variables": variables(),
        "preloaded": [Path(word).name for word in os.environ.get("LD_PRELOAD", "").replace(":", " ").split()],
        "slurm": {key: value for key, value in sorted(os.environ.items()) if key.startswith(SLURM)},
        "slurm_job": job,
        "slurm_job_reason": why_no_job,
    }


def variables() -> dict[str, str]:
    """Those of the user's environment that change threads, memory or arithmetic, as far as they are set.

    They are what a worker gets, but for those that it is given for its number of threads and its heap.
    """
    chosen = (name for name in sorted(os.environ) if name.startswith(VARIABLES + VARIABLES_OF_GPUS))
    return {name: os.environ[name] for name in chosen if name not in SET_BY_LIBRARIES}


def variables_of_threads() -> list[str]:
    """Those of `variables` that may limit threads or bind them to cores, as NAME=value."""
    named = {name: value for name, value in variables().items() if any(part in name for part in OF_THREADS)}
    return [f"{name}={value}" for name, value in named.items() if name not in NO_CONDITION]


def node() -> str:
    """The name of this node: SLURM's where it has one, else the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def cpu() -> dict[str, Any]:
    """Model, cores, usable cores (affinity) and the vector extensions that decide speed."""
    first = (text_of(Path("/proc/cpuinfo")) or "").split("\n\n")[0]  # of the processors, which are alike
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = set(fields.get("flags", "").split())
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
    }


def usable_cores() -> int:
    """CPU cores that this process may use: its affinity, and no more than it was given.

    That is what its cgroup's quota (a container's --cpus) and its SLURM task (--cpus-per-task) say; a cluster that does
    not bind tasks to cores shows all of the node's to each. Of a quota only whole cores count: a thread more would use
    it up before its period is over, and then all of them are stopped.

    Raises:
        DeviceError: SLURM_CPUS_PER_TASK is no number of cores.
    """
    cores = len(os.sched_getaffinity(0))  # os.cpu_count() would count cores that taskset or a cpuset takes away
    cores = min(cores, _cores_of_task() or cores)
    quota = cgroups.share(cgroups.limits()["cpu.max"] or "max")
    return cores if math.isinf(quota) else max(1, min(cores, math.floor(quota)))


def _cores_of_task() -> int | None:
    """Those that SLURM gave to each task; None: it says nothing."""
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    if not given:
        return None
    if not given.isdecimal() or int(given) < 1:
        raise DeviceError(
            f"SLURM_CPUS_PER_TASK is {given!r}, and must be a whole number of cores from 1: "
            "unset it, or ask by --cpus-per-task"
        )
    return int(given)


def container() -> str | None:
    """What kind of container this runs in, as far as it shows; None: it shows none."""
    signs = {"/.dockerenv": "docker", "/run/.containerenv": "podman", "/.singularity.d": "apptainer"}
    given = os.environ.get("container")  # noqa: SIM112 - systemd and podman write it so
    return given or next((name for path, name in signs.items() if Path(path).exists()), None)


def tuning(sys: Path = SYS) -> dict[str, str | int | None]:
    """What changes a core's speed: governor, driver, turbo, SMT, NUMA nodes; null where the kernel does not say."""
    cpu, freq = sys / "devices/system/cpu", sys / "devices/system/cpu/cpu0/cpufreq"
    nodes = [node for node in (sys / "devices/system/node").glob("node*") if node.name[4:].isdigit()]
    no_turbo, boost = text_of(cpu / "intel_pstate/no_turbo"), text_of(cpu / "cpufreq/boost")
    return {
        "governor": text_of(freq / "scaling_governor"),
        "frequency_driver": text_of(freq / "scaling_driver"),
        "turbo": {"0": "on", "1": "off"}.get(no_turbo or "", {"1": "on", "0": "off"}.get(boost or "")),
        "smt": {"1": "on", "0": "off"}.get(text_of(cpu / "smt/active") or ""),
        "numa_nodes": len(nodes) or None,
        "transparent_hugepage": text_of(sys / "kernel/mm/transparent_hugepage/enabled"),
    }


def gpus() -> tuple[list[dict[str, Any]], str | None]:
    """All NVIDIA GPUs that NVML shows, and why there are none when there are none."""
    try:
        import pynvml
    except ImportError:
        return [], "nvidia-ml-py is not installed (extra `run`)"
    try:
        pynvml.nvmlInit()
        try:
            return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())], None
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return [], f"NVML: {error}"


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "name": nvml.nvmlDeviceGetName(handle),
        "uuid": nvml.nvmlDeviceGetUUID(handle),
        "memory_MiB": round(nvml.nvmlDeviceGetMemoryInfo(handle).total / 2**20),
        "driver": nvml.nvmlSystemGetDriverVersion(),
        "cuda_driver": _optional(nvml, lambda: nvml.nvmlSystemGetCudaDriverVersion()),
        "power_limit_W": _optional(nvml, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3),
        "persistence": _optional(nvml, lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle))),
        "mig": _optional(nvml, lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0])),
        "pcie_generation": _optional(nvml, lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)),
        "max_sm_MHz": _optional(nvml, lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
    }


def _optional(nvml: Any, reading: Callable[[], Any]) -> Any:
    """What the driver or the site may refuse; then null."""
    try:
        return reading()
    except nvml.NVMLError:
        return None


def packages() -> dict[str, str | None]:
    """Installed versions of what a measurement depends on."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def lock_sha256() -> str | None:
    """SHA-256 of constraints.txt."""
    file = paths.repo_root() / "constraints.txt"
    return paths.sha256_file(file) if file.is_file() else None


NOT_UNDER_GIT = "not under git"


def git() -> dict[str, Any]:
    """Commit of the checkout, whether it has uncommitted changes, and why there is no commit where there is none."""
    sha, reason = _git("rev-parse", "HEAD")
    status, unreadable = _git("status", "--porcelain") if sha else (None, reason)
    return {"sha": sha, "dirty": bool(status) if status is not None else None, "reason": unreadable}


def _git(*arguments: str) -> tuple[str | None, str | None]:
    """What git says; where it fails: None, and why."""
    if not shutil.which("git"):
        return None, "git is not installed"
    command, env = ["git", "-C", str(paths.repo_root()), *arguments], os.environ | {"LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, check=False, env=env, encoding="utf-8", errors="replace")
    if done.returncode == 0:
        return done.stdout.strip(), None
    if "dubious ownership" in done.stderr:  # of another user, as after a bind mount or `sudo`: git reads nothing there
        way_out = f"git config --global --add safe.directory {shlex.quote(str(paths.repo_root()))}"
        return None, f"git refuses the checkout, since it belongs to another user; trust it with: {way_out}"
    if "not a git repository" in done.stderr:
        return None, NOT_UNDER_GIT
    first = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
    return None, f"git: {first.removeprefix('fatal: ')}"


def uncommitted(git: dict[str, Any]) -> str | None:
    """Why code is in no commit, from what `git` said, which is what an env.json has; None: it is in one."""
    if git["dirty"]:
        return "uncommitted changes"
    return git.get("reason") or (None if git["sha"] else NOT_UNDER_GIT)
