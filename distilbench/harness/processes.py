"""Processes, fresh or forked: each measures one step, and whatever ends it becomes a record.

Nothing here imports torch: a task of a cluster only starts the processes that measure, and what it takes is theirs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from distilbench import paths
from distilbench.collectors import cpu_use
from distilbench.errors import Stopped, StorageError
from distilbench.harness import fork_server
from distilbench.harness.handover import CellSpec
from distilbench.machine import cgroups, environment
from distilbench.runs.folder import Run
from distilbench.runs.measurement import KINDS
from distilbench.runs.parameters import Resolved
from distilbench.runs.records import Cell, Record

WORKER = (*paths.PYTHON, "-m", "distilbench.harness")  # takes the name of a module with a `main`, and a file for it
CEILINGS = (*WORKER, "distilbench.harness.ceilings")
#: Keeps all freed memory in the process (mallopt(3)): none is given back from the heap's end, none is mapped for one
#: block alone.
KEPT_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_MMAP_MAX_": "0"}


class Spec(Protocol):
    """What a worker is told: a file that it reads.

    Attributes:
        identity: the fields of the record that say which step it is.
        protocol: of the design; num_threads and heap are read here.
    """

    identity: dict[str, Any]
    protocol: dict[str, Any]

    def save(self, file: Path) -> None:
        """Writes it."""


@dataclass(frozen=True)
class StepSpec:
    """What the worker of a step is told that nothing was prepared for."""

    identity: dict[str, Any]
    protocol: dict[str, Any]

    def save(self, file: Path) -> None:
        """Writes it for the worker."""
        paths.write_json(file, vars(self))


def take(run: Run, resolved: Resolved, prepared: Any) -> Callable[[Cell, str, int, int], Record]:
    """What measures a step: the `worker` module of the kind in a fresh process, told all parameters."""
    params, command = resolved.params, (*WORKER, f"{KINDS}.{run.kind.name}.worker")
    protocol = params.model_dump(mode="json") | cores(params.num_threads)

    def step(cell: Cell, pass_name: str, repetition: int, attempt: int) -> Record:
        names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
        return run_worker(run, command, StepSpec(cell.model_dump() | names, protocol), params.repetition_timeout_s)

    return step


def taking(
    worker: str,
    protocol: Callable[[Any, Any], dict[str, Any]],
    model: Callable[[Any], dict[str, Any]] = lambda params: params.model_arguments(),
) -> Callable[[Run, Resolved, dict[str, Any]], Callable[[Any, str, int, int], Any]]:
    """The `take` of a kind: what measures a step, in a fresh process that is told what was prepared.

    Args:
        worker: name of its module.
        protocol: of parameters and a cell, what of the design it needs; cores come with it.
        model: of parameters, what it loads.
    """

    def take(run: Run, resolved: Resolved, prepared: dict[str, Any]) -> Callable[[Any, str, int, int], Any]:
        """What measures a step into a run, or into an attempt at a shard of it."""
        params = resolved.params

        def step(cell: Cell, pass_name: str, repetition: int, attempt: int) -> Record:
            names = {"study": params.study, "pass": pass_name, "repetition": repetition, "attempt": attempt}
            own = protocol(params, cell) | cores(params.num_threads)
            spec = CellSpec(str(run.folder), prepared["folder"], cell.model_dump() | names, model(params), own)
            return run_worker(run, (*WORKER, worker), spec, params.repetition_timeout_s)

        return step

    return take


def run_worker(run: Run, command: tuple[str, ...], spec: Spec, timeout_s: float, fresh: bool = True) -> Record:
    """Runs one step in a process of its own; what came of it, which is not committed yet.

    Args:
        fresh: False: it may be forked from one that has imported what it needs (see `fork_server`).

    Raises:
        StorageError: the worker found no room for its files.
        Stopped: it was asked to stop and saved what it has: nothing is committed, and the next attempt goes on with it.
    """
    job_file = run.folder / "work" / "job.json"
    for stale in job_file.parent.glob("job.*"):
        stale.unlink()
    spec.save(job_file)
    settings = spec.protocol["num_threads"], spec.protocol["heap"]
    server = None if fresh else fork_server.ready(command, _variables(*settings), timeout_s)
    if not server:
        fork_server.end()  # a fresh process measures alone: what a server holds counts in their control group, too
    started, clock, before, kills = environment.now(), time.monotonic(), cpu_use.cpu_counters(), cgroups.oom_kills()
    if server:
        code, log, forked_s = server.run(job_file, timeout_s)
    else:
        (code, log), forked_s = _spawn((*command, str(job_file)), timeout_s, *settings), 0.0
    after = cpu_use.cpu_counters()
    # a fork is no child of this process, which the system counts: what it took would be taken for that of others
    meanwhile = cpu_use.cpu_use_between(before, replace(after, children_s=after.children_s + forked_s))
    here = {"node": environment.node(), "start": "forked" if server else "fresh"}
    record_file, failure_file = job_file.with_suffix(".record.json"), job_file.with_suffix(".failure.json")
    if code == 0 and record_file.is_file():
        record = run.kind.record.model_validate_json(record_file.read_text(encoding="utf-8"))
        seconds = time.monotonic() - clock  # the worker cannot see how long its own imports took
        return record.model_copy(update={"seconds": seconds} | here | meanwhile)
    status, error = _outcome(code, failure_file, log, timeout_s)
    if code == -signal.SIGKILL and cgroups.killed_since(kills):
        status, error = "oom", "killed by the kernel for memory (the control group counts it)"
    if status == "storage":
        raise StorageError(error)
    if status == "preempted":
        raise Stopped(error)
    end = {"status": status, "error": error, "started": started, "seconds": time.monotonic() - clock}
    return run.kind.record(**spec.identity, **end, **here)


def unavailable(run: Run, identity: dict[str, Any], reason: str) -> Record:
    """The record of a step that cannot be measured here; no process is started for it."""
    return run.kind.record(**identity, status="unavailable", error=reason, started=environment.now(), seconds=0)


def measure_ceilings(
    run: Run, device: str, dtypes: list[str], seconds: float, num_threads: int, timeout_s: float
) -> None:
    """What the machine can do at best, once per run, in a fresh process with the threads of the others.

    Args:
        dtypes: of the matrix products.
        seconds: for each ceiling; 0: none is measured.
    """
    file = run.folder / "ceilings.json"
    if file.is_file() or not seconds:
        return
    job_file = run.folder / "work" / "ceilings.json"
    job = {"device": device, "dtypes": dtypes, "seconds": seconds, "num_threads": num_threads}
    if reason := failure_of(CEILINGS, job_file, job, timeout_s):
        print(f"the machine's ceilings could not be measured: {reason}", flush=True)
    paths.write_json(file, {"reason": reason} if reason else paths.read_json(job_file.with_suffix(".result.json")))


def failure_of(command: tuple[str, ...], job_file: Path, job: dict[str, Any], timeout_s: float) -> str | None:
    """Runs a task in a fresh process, which reads `job` from that file; why it failed, or None."""
    paths.write_json(job_file, job)
    code, log = _spawn((*command, str(job_file)), timeout_s, job["num_threads"])
    return None if code == 0 else _outcome(code, job_file.with_suffix(".failure.json"), log, timeout_s)[1]


def cores(num_threads: int) -> dict[str, Any]:
    """Which cores a worker takes, and how many threads; 0: one per usable core."""
    return {"affinity": sorted(os.sched_getaffinity(0)), "num_threads": num_threads or environment.usable_cores()}


def _spawn(
    command: tuple[str, ...], timeout_s: float, num_threads: int, heap: str = "system"
) -> tuple[int | None, str]:
    """Starts the worker and sleeps until it ends: (exit code, or None after the timeout; what it said on stderr).

    The parent blocks on the worker's pipe; it must not poll, for a core that the parent burns is one that the
    measured process lacks.
    """
    # a fresh program, not a fork: a forked process would share pages, thread pools and caches with this one
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_variables(num_threads, heap),
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    try:
        _, log = process.communicate(timeout=timeout_s)
        return process.returncode, log
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _variables(num_threads: int, heap: str) -> dict[str, str]:
    """The environment of a worker."""
    # before it starts: OpenMP, MKL and the C library read these once, when they are loaded
    given = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return os.environ | given | {"DISTILBENCH_PARENT": str(os.getpid())} | (KEPT_HEAP if heap == "keep" else {})


def _outcome(code: int | None, failure_file: Path, log: str, timeout_s: float) -> tuple[str, str]:
    """What a repetition without a record ended as, and why."""
    if code is None:
        return "timeout", f"not done after repetition_timeout_s = {timeout_s:g} s"
    if failure_file.is_file():
        failure = paths.read_json(failure_file)
        return failure["status"], failure["error"]
    if code < 0:
        return "failed", f"killed by {signal.Signals(-code).name}"
    lines = [line for line in log.splitlines() if line.strip()]  # the last one of a traceback is the error
    return "failed", lines[-1] if lines else f"the worker ended with code {code} and said nothing"
