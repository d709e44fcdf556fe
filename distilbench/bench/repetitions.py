"""Repetitions: each measured in a fresh process and committed, for a whole run or for a part of one.

Nothing here imports torch: a task of a cluster only starts the processes that measure, and what it takes is theirs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilbench import cgroups, environment, neighbours, paths, runs
from distilbench.bench import parts
from distilbench.bench.job import Job, predictions_file
from distilbench.collectors import energy
from distilbench.errors import RunError, Stopped, StorageError
from distilbench.params import DistilbertParams, Resolved
from distilbench.progress import Progress
from distilbench.records import FINAL, MEASURED, Cell, Repetition, read_parquet, read_raw

WORKER = (*paths.PYTHON, "-m", "distilbench.bench")  # takes the job's file
CEILINGS = (*WORKER, "ceilings")  # so does this one
PREPARED = Path("work", "prepared.json")  # in a run's folder
PROTOCOL = (
    "warmup_cycles", "warmup_seconds", "warmup_max_seconds", "min_cycles", "min_iterations", "min_seconds",
    "half_width", "max_seconds", "samples_per_cycle", "seed", "num_threads", "energy_windows", "energy_window_s",
    "energy_idle_s", "modelled_power_W", "heap",
)  # fmt: skip
#: Keeps all freed memory in the process (mallopt(3)): none is given back from the heap's end, none is mapped for one
#: block alone.
KEPT_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_MMAP_MAX_": "0"}


@dataclass(frozen=True)
class Prepared:
    """What all cells of a run share.

    Attributes:
        inputs: .npz with token ids, sample ids and labels.
        manifest: what the text is.
        model: what the model is.
        label_names: of the data.
        vocab_size: rows that the tokenizer needs; random weights get an embedding table of that size.
        texts: .json with the sentences, for requests; "" without.
        tokenizer: its folder; "" without.
    """

    inputs: Path
    manifest: dict[str, Any]
    model: dict[str, Any]
    label_names: list[str]
    vocab_size: int
    texts: str = ""
    tokenizer: str = ""

    def save(self, run: runs.Run) -> None:
        """Leaves it in the run's scratch folder, for parts that are measured elsewhere."""
        paths.write_json(run.folder / PREPARED, vars(self) | {"inputs": str(self.inputs)})

    @staticmethod
    def is_there(run: runs.Run) -> bool:
        """Whether it was saved; with a run's end its scratch folder goes."""
        return (run.folder / PREPARED).is_file()

    @classmethod
    def load(cls, run: runs.Run) -> Prepared:
        """What another process prepared.

        Raises:
            RunError: none did.
        """
        told = paths.read_json(run.folder / PREPARED)
        return cls(**told | {"inputs": Path(told["inputs"])})


def measure_part(run: runs.Run, resolved: Resolved, number: int, retry_oom: bool = False) -> None:
    """Measures what a part of a run lacks, into an attempt of its own; nothing is done where nothing is lacking.

    Args:
        run: a run in parts, prepared.
        resolved: its design.
        number: of the part.
        retry_oom: measure again what ended for want of memory.

    Raises:
        RunError: there is no such part; this node is of another kind than the first; repetitions failed.
        Stopped: asked to stop after a repetition (see `sweep`).
    """
    run.require_same_design(resolved)
    shares = parts.of(run, resolved)
    if not 0 <= number < len(shares):
        raise RunError(f"run {run.run_id} has parts 0 to {len(shares) - 1}, and no part {number}")
    steps, before = shares[number], parts.repetitions(run, number)
    if not parts.lacking(steps, before, retry_oom):
        print(f"part {number} of run {run.run_id}: all of its {len(steps)} repetitions are done", flush=True)
        return
    prepared = Prepared.load(run)
    with parts.begun(run, number) as attempt:
        if not number and not any((a.folder / "ceilings.json").is_file() for a in parts.attempts(run, number)):
            measure_ceilings(attempt, resolved.params)
        measure_steps(attempt, resolved, prepared, steps, before, retry_oom=retry_oom)
        now = read_raw(attempt.raw)[0]
        if failed := [record for record in now if record.status not in FINAL]:
            raise RunError(f"{len(failed)} of {len(now)} repetitions failed; the first: {failed[0].error}")


def measure_steps(
    run: runs.Run,
    resolved: Resolved,
    prepared: Prepared,
    steps: list[parts.Step],
    before: list[Repetition],
    extra: int = 0,
    retry_oom: bool = False,
) -> Callable[[Cell, str, int], None]:
    """Measures the steps that are not finished yet, into a run or an attempt; returns what measures one more.

    Args:
        before: what was committed earlier.
        extra: steps that will come after these.
    """
    params, done = resolved.params, parts.finished(before, retry_oom)
    hopeless = {record.cell for record in done.values() if record.status == "oom"}
    attempts = {record.key: record.attempt for record in before}
    progress = Progress(len(steps) + extra, done=0)
    no_energy = energy.unavailable_reason(params.device) if params.modelled_power_W is None else None
    lacking, finished_now = parts.lacking(steps, before, retry_oom), 0

    def step(cell: Cell, where: str, repetition: int) -> None:
        nonlocal finished_now
        key = (cell.cell, where, repetition)
        lacking.discard(key)
        if key in done or cell.cell in hopeless:
            progress.done += 1
            return
        run.set_status("running", cells={cell.cell: "running"})
        job = _job(run, resolved, prepared, cell, where, repetition, attempts.get(key, 0) + 1)
        if where == "energy" and no_energy:
            record = _unavailable(run, job, no_energy)
        else:
            record = _run_worker(run, job, params.repetition_timeout_s)
        if record.status == "oom":
            hopeless.add(cell.cell)  # its other repetitions would end the same way
        progress.step(_line(record))
        finished_now += record.status in FINAL
        if lacking:
            _stop_if_asked(finished_now, len(lacking))

    for planned in steps:
        step(*planned)
    return step


def _stop_if_asked(finished_now: int, left: int) -> None:
    """Ends the measuring between two repetitions when a batch script says so (its time is nearly over).

    Raises:
        Stopped: it does.
        RunError: it does, and nothing was finished since the start: to start again would help nobody.
    """
    file = os.environ.get("DISTILBENCH_STOP_FILE")
    if not file or not Path(file).exists():
        return
    if not finished_now:
        raise RunError(f"no repetition was finished before the time was over, {left} are left: ask for more (--time)")
    raise Stopped(f"asked to stop with {left} repetitions left")


def _unavailable(run: runs.Run, job: Job, reason: str) -> Repetition:
    """Commits that something cannot be measured here; no process is started for it."""
    record = Repetition(**job.identity, status="unavailable", error=reason, started=environment.now(), seconds=0)
    run.commit(record)
    return record


def measure_ceilings(run: runs.Run, params: DistilbertParams) -> None:
    """What the machine can do at best, once per run, in a fresh process with the sweep's threads."""
    file = run.folder / "ceilings.json"
    if file.is_file() or not params.ceiling_s:
        return
    job_file = run.folder / "work" / "ceilings.json"
    dtypes = sorted({params.dtype} | ({"bfloat16"} if "autocast" in params.variants else set()))
    job = {"device": params.device, "dtypes": dtypes, "seconds": params.ceiling_s}
    job |= {"num_threads": cores(params)["num_threads"]}
    paths.write_json(job_file, job)
    code, log = _spawn((*CEILINGS, str(job_file)), params.repetition_timeout_s, job["num_threads"])
    result = job_file.with_suffix(".result.json")
    if code == 0 and result.is_file():
        paths.write_json(file, paths.read_json(result))
    else:
        reason = _outcome(code, job_file.with_suffix(".failure.json"), log, params.repetition_timeout_s)[1]
        paths.write_json(file, {"reason": reason})
        print(f"the machine's ceilings could not be measured: {reason}", flush=True)


def failure_of(task: str, job_file: Path, num_threads: int, timeout_s: float) -> str | None:
    """Runs a task of `distilbench.bench` in a fresh process; why it failed, or None."""
    code, log = _spawn((*WORKER, task, str(job_file)), timeout_s, num_threads)
    return None if code == 0 else _outcome(code, job_file.with_suffix(".failure.json"), log, timeout_s)[1]


def cores(params: DistilbertParams) -> dict[str, Any]:
    """Which cores a worker takes, and how many threads."""
    threads = params.num_threads or environment.usable_cores()
    return {"affinity": sorted(os.sched_getaffinity(0)), "num_threads": threads}


def _job(
    run: runs.Run,
    resolved: Resolved,
    prepared: Prepared,
    cell: Cell,
    where: str,
    repetition: int,
    attempt: int,
) -> Job:
    params = resolved.params
    return Job(
        run=str(run.folder),
        inputs=str(prepared.inputs),
        identity=cell.model_dump()
        | {"study": params.study, "pass": where, "repetition": repetition, "attempt": attempt},
        model=params.model_arguments(prepared.vocab_size),
        protocol={name: getattr(params, name) for name in PROTOCOL} | cores(params),
        label_names=prepared.label_names,
        texts=prepared.texts,
        tokenizer=prepared.tokenizer,
    )


def _line(record: Repetition) -> str:
    what = (
        f"{'control: ' if record.control_of else ''}{record.variant} {record.length_policy} "
        f"batch {record.batch_size}, {record.pass_} {record.repetition + 1}: "
    )
    if record.status not in MEASURED:
        return what + f"{record.status.upper()} {record.error}"
    if record.pass_ == "timing":
        unstable = ", UNSTABLE (not settled when the warm-up was cut off)" if record.status == "unstable" else ""
        return what + f"{record.latency_ms:.2f} ms, {record.throughput_samples_per_s:.1f} samples/s{unstable}"
    if record.pass_ == "energy":
        return what + f"{record.energy_per_sample_J:.3g} J per sample ({record.energy_source})"
    return what + f"peak {record.peak_rss_MiB:.0f} MiB"


def _run_worker(run: runs.Run, job: Job, timeout_s: float) -> Repetition:
    """Runs one repetition in a fresh process and commits what came of it."""
    job_file = run.folder / "work" / "job.json"
    for stale in job_file.parent.glob("job.*"):
        stale.unlink()
    job.save(job_file)
    started, clock, before, kills = environment.now(), time.monotonic(), neighbours.look(), cgroups.oom_kills()
    code, log = _spawn((*WORKER, str(job_file)), timeout_s, job.protocol["num_threads"], job.protocol["heap"])
    meanwhile = neighbours.between(before, neighbours.look())
    record_file, failure_file = job_file.with_suffix(".record.json"), job_file.with_suffix(".failure.json")
    if code == 0 and record_file.is_file():
        record = Repetition.model_validate_json(record_file.read_text(encoding="utf-8"))
        seconds = time.monotonic() - clock  # the worker cannot see how long its own imports took
        record = record.model_copy(update={"seconds": seconds, "node": environment.node()} | meanwhile)
    else:
        status, error = _outcome(code, failure_file, log, timeout_s)
        if code == -signal.SIGKILL and cgroups.killed_since(kills):
            status, error = "oom", "killed by the kernel for memory (the control group counts it)"
        if status == "storage":
            raise StorageError(error)
        told = {"status": status, "error": error, "started": started, "node": environment.node()}
        record = Repetition(**job.identity, **told, seconds=time.monotonic() - clock)
    predictions = predictions_file(run.folder, record.cell)
    first = record.pass_ == "timing" and record.repetition == 0 and record.status in MEASURED
    run.commit(record, read_parquet(predictions) if first else None)
    return record


def _spawn(
    command: tuple[str, ...], timeout_s: float, num_threads: int, heap: str = "system"
) -> tuple[int | None, str]:
    """Starts the worker and sleeps until it ends: (exit code, or None after the timeout; what it said on stderr).

    The parent blocks on the worker's pipe; it must not poll, for a core that the parent burns is one that the
    measured process lacks.
    """
    child_env = os.environ | {
        "DISTILBENCH_PARENT": str(os.getpid()),
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        **(KEPT_HEAP if heap == "keep" else {}),
    }
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=child_env,
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


def _outcome(code: int | None, failure_file: Path, log: str, timeout_s: float) -> tuple[str, str]:
    """What a repetition without a record ended as, and why."""
    if code is None:
        return "timeout", f"not done after repetition_timeout_s = {timeout_s:g} s"
    if failure_file.is_file():
        failure = paths.read_json(failure_file)
        return failure["status"], failure["error"]
    if code < 0:
        return "failed", f"killed by {signal.Signals(-code).name}"
    lines = [line for line in log.splitlines() if line.strip()]
    return "failed", lines[-1] if lines else f"the worker ended with code {code} and said nothing"
