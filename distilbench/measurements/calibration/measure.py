"""The instrument tested on known truths: overhead, sleeps, allocations, equal things, slow-downs, intervals.

A calibration is a folder of its own, results/calibration/<run_id>/: config.json, env.json, checks.jsonl (one line per
reading) and summary.json (what it says of the instrument, a pure function of the others).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distilbench import paths, simulated_traces
from distilbench.collectors.latency import HostClock
from distilbench.collectors.telemetry import Telemetry
from distilbench.errors import RunError
from distilbench.harness import fork_server, preflight, processes, steps
from distilbench.harness.loop import Loop
from distilbench.machine import environment
from distilbench.measurements.calibration import forks
from distilbench.measurements.calibration.summary import BASE, SLOWED, SWEPT, TWIN, of_sweep, summarise
from distilbench.measurements.calibration.workload import PROTOCOL
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.measurements.sweep.records import Repetition
from distilbench.progress import Progress
from distilbench.runs import find, parameters
from distilbench.runs.folder import Run
from distilbench.stats import MIN_REPETITIONS

BUSY = (*processes.WORKER, "distilbench.measurements.calibration.workload")
ALLOCATE = (*processes.WORKER, "distilbench.measurements.calibration.allocation")
SLEEPS_MS = (1.0, 10.0, 100.0)
ALLOCATIONS_MiB = (64, 512)
SEED = 17
#: Rounds of the pool, and what it holds besides both of these.
DEPTHS = {"quick": (10, ("slowed-5",)), "full": (60, tuple(SLOWED)), "deep": (60, tuple(SLOWED))}
FORKS = "forks"  # in the place of a depth
#: One cell of the embedded model. Its arithmetic has one thread, like that of the workload: a virtual machine's cores
#: may come to share one of the host's, and then two threads run at two speeds, by turns; that would be told of the
#: machine, not of the instrument.
CELL = {
    "profile": "full", "source": "embedded", "variants": ["sdpa"], "batch_sizes": [8], "length_policies": ["fixed-32"],
    "samples_per_cycle": 64, "passes": ["timing"], "warmup_seconds": 0.5, "warmup_max_seconds": 5.0,
    "min_seconds": 1.0, "max_seconds": 3.0, "ceiling_s": 0.0, "num_threads": 1,
}  # fmt: skip


class NoTelemetry(Telemetry):
    """Reads nothing between cycles: for what is too short to be disturbed."""

    def due(self) -> bool:
        """Never."""
        return False


def calibrate(depth: str, results_root: str = "") -> Path:
    """Runs all checks of that depth; returns the calibration's folder.

    Args:
        depth: quick (under a minute), full (minutes), or deep: the pool is a sweep of a real model (most of an hour),
            which is resumed where it was interrupted; or forks: none of these, but repetitions of a real model that
            are forked from one process against fresh ones (half an hour).
        results_root: folder of run folders.
    """
    # first: they take long, and one of them can be resumed
    swept = {"deep": lambda: [sweep(results_root)], FORKS: lambda: both_ways(results_root)}.get(depth, list)()
    folder = paths.results_root(results_root) / "calibration" / find.new_run_id("cpu")
    config = {
        "schema_version": 1, "run_id": folder.name, "kind": "calibration", "depth": depth,
        "created": environment.now(), "protocol": PROTOCOL, "seed": SEED,
        "sweep": ", ".join(run.run_id for run in swept) or None,
    }  # fmt: skip
    config |= {"blocks": forks.SERVERS, "each": forks.EACH} if depth == FORKS else {"rounds": DEPTHS[depth][0]}
    paths.write_json(folder / "env.json", environment.capture())
    paths.write_json(folder / "config.json", config)
    if swept:
        paths.write_atomic(folder / SWEPT, b"".join(run.raw.read_bytes() for run in swept))
    checks = _checks(depth, folder, [record for run in swept for record in run.measured()])
    progress = Progress(len(checks))
    for name, check in checks.items():
        for reading in check():
            paths.append_line(folder / "checks.jsonl", json.dumps({"check": name} | reading))
        progress.step(name)
    paths.write_json(folder / "summary.json", summarise(folder))
    return folder


def _checks(
    depth: str, folder: Path, repetitions: list[Repetition]
) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    """What reads each check of that depth, by name; `repetitions` are those of its sweeps."""
    if depth == FORKS:
        return {forks.CHECK: lambda: forks.of_sweeps(repetitions, forks.EACH)}
    return {
        "overhead": overhead,
        "sleep": sleeps,
        "allocation": lambda: allocations(folder),
        "pool": lambda: of_sweep(repetitions) if repetitions else pool(folder, *DEPTHS[depth], SEED),
        "coverage": coverage,
    }


def sweep(results_root: str = "") -> Run:
    """The pool of a deep calibration: one cell of the embedded model and its slowed variants, as any sweep."""
    repetitions = DEPTHS["deep"][0]
    given = {"variants": ["sdpa", *SLOWED], "control": True, "repetitions": repetitions, "heap": "keep"}
    resolved = _resolved(results_root, given)
    run = preflight.start(resolved, SWEEP)
    steps.measure_run(run, resolved)
    return run


def both_ways(results_root: str = "") -> list[Run]:
    """Two new sweeps of the cell, one forked and one fresh, block by block in turns; a process forks one block.

    The heap is as in any script: memory layouts differ by more there.

    Raises:
        RunError: a repetition was not measured, or not in the way that was asked for.
    """
    given = {"control": False, "repetitions": forks.SERVERS * forks.EACH}
    designs = [_resolved(results_root, given | {"fresh_processes": way == "fresh"}) for way in forks.WAYS]
    runs = [preflight.start(design, SWEEP, new=True) for design in designs]
    with ExitStack() as held:
        for run in runs:
            held.enter_context(run.held())
        try:
            _in_blocks([_one_step(run, design) for run, design in zip(runs, designs, strict=True)])
        finally:
            fork_server.end()
        for run, design in zip(runs, designs, strict=True):
            steps.finish(run, design)
    for run, way in zip(runs, forks.WAYS, strict=True):
        if others := [record for record in run.repetitions() if not record.latency_ms or record.start != way]:
            why = others[0].error or f"it was {others[0].start}"
            raise RunError(f"{len(others)} repetitions of {run.folder} were not measured {way}; the first: {why}")
    return runs


def _one_step(run: Run, design: parameters.Resolved) -> Callable[[int], None]:
    """What measures the repetition of that number into the run."""
    measuring, (cell,) = SWEEP.measuring, SWEEP.cells(design.params)
    take = measuring.take(run, design, measuring.prepare(design.params, run))
    step = steps.measure_steps(run, design, take, [], [], extra=design.params.repetitions)
    return lambda number: step(cell, "timing", number)


def _in_blocks(ways: list[Callable[[int], None]]) -> None:
    """Blocks of repetitions, one of each way, in shuffled order."""
    order = random.Random(SEED)
    for block in range(forks.SERVERS):
        for step in order.sample(ways, len(ways)):
            fork_server.end()  # also where the block before was forked: each has a process of its own
            for number in range(block * forks.EACH, (block + 1) * forks.EACH):
                step(number)


def _resolved(results_root: str, given: dict[str, Any]) -> parameters.Resolved:
    """The design of a sweep that is no run of a study."""
    place = paths.results_root(results_root) / "calibration" / "sweeps"
    return parameters.resolve(DistilbertParams, "distilbert", CELL | given | {"results_root": str(place)})


# ------------------------------------------------------------------ readings


def overhead(cycles: int = 400) -> Iterator[dict[str, Any]]:
    """A model that does nothing: what a reading adds to a time, and what the loop takes around it, in µs."""
    for _ in range(5):
        loop = Loop(PROTOCOL, [lambda: None] * 8, [1] * 8, HostClock(), NoTelemetry())
        start = time.perf_counter()
        for cycle in range(cycles):
            loop._cycle(cycle, warmup=False)
        spent_us = (time.perf_counter() - start) * 1e6
        readings_us = [row["latency_ms"] * 1e3 for row in loop.rows]
        yield {"reading_us": median(readings_us), "loop_us": spent_us / len(readings_us)}


def sleeps() -> Iterator[dict[str, Any]]:
    """Forwards that sleep for a known time."""
    for wanted_ms in SLEEPS_MS:
        loop = Loop(PROTOCOL, [lambda ms=wanted_ms: time.sleep(ms / 1e3)] * 8, [1] * 8, HostClock(), NoTelemetry())
        for cycle in range(1 if wanted_ms > 50 else 5):
            loop._cycle(cycle, warmup=False)
        yield {"wanted_ms": wanted_ms, "measured_ms": median(row["latency_ms"] for row in loop.rows)}


def allocations(folder: Path) -> Iterator[dict[str, Any]]:
    """Processes that take a known amount of memory after their model, which is nothing."""
    for wanted_MiB in ALLOCATIONS_MiB:
        yield {"wanted_MiB": wanted_MiB} | _in_a_process(ALLOCATE, folder, {"MiB": wanted_MiB})


def pool(folder: Path, rounds: int, slowed: tuple[str, ...], seed: int) -> Iterator[dict[str, Any]]:
    """Fresh processes of one workload, of the same once more, and of slowed ones, in rounds of shuffled order."""
    order = random.Random(seed)
    for number in range(rounds):
        for what in order.sample([BASE, TWIN, *slowed], 2 + len(slowed)):
            found = _in_a_process(BUSY, folder, {"slow_down": SLOWED.get(what, 0.0)})
            yield {"what": what, "round": number} | found


def coverage() -> Iterator[dict[str, Any]]:
    """How often 95 % intervals hold the truth on simulated traces; kept, since numpy may draw otherwise one day.

    Of the fewest repetitions that have an interval, and of as many as a full run has.
    """
    for repetitions in (MIN_REPETITIONS, simulated_traces.USUAL):
        for kind, share in simulated_traces.coverages(repetitions).items():
            yield {"kind": kind, "repetitions": repetitions, "share": share, "numpy": np.__version__}


def _in_a_process(command: tuple[str, ...], folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What a fresh process finds; its arithmetic has one thread, so that two cores suffice for it and the rest."""
    file = folder / "job.json"
    paths.write_json(file, job)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    env = os.environ | threads | {"DISTILBENCH_PARENT": str(os.getpid())}
    done = subprocess.run(
        [*command, str(file)], env=env, stderr=subprocess.PIPE, check=False, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode} and said nothing"]
        raise RunError(f"the process of {command[-1]} failed: {said[-1]}")
    result = paths.read_json(file.with_suffix(".result.json"))
    file.unlink()
    file.with_suffix(".result.json").unlink()
    return result
