"""The instrument tested on known truths: overhead, sleeps, allocations, equal things, slow-downs, intervals.

A calibration is a folder of its own, results/calibration/<run_id>/: config.json, env.json, checks.jsonl (one line per
reading) and summary.json (what it says of the instrument, a pure function of the others).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from distilbench import environment, params, paths, traces, verify
from distilbench.bench.busywork import PROTOCOL
from distilbench.bench.loop import Loop
from distilbench.collectors.latency import HostClock
from distilbench.collectors.telemetry import Telemetry
from distilbench.errors import RunError
from distilbench.progress import Progress
from distilbench.records import Repetition, read_raw
from distilbench.runs import Run, new_run_id
from distilbench.stats import CLAIMED, MIN_REPETITIONS, ratio_interval, verdict_of, wilson_interval

BUSY = (*paths.PYTHON, "-m", "distilbench.bench", "busy")
ALLOCATE = (*paths.PYTHON, "-m", "distilbench.bench", "allocate")
SLEEPS_MS = (1.0, 10.0, 100.0)
ALLOCATIONS_MiB = (64, 512)
SLOWED = {"slowed-2": 0.02, "slowed-5": 0.05, "slowed-10": 0.10}  # variants of a sweep, and their shares
SWEPT = "sweep.raw.jsonl"  # the repetitions of a deep calibration's pool
SEED = 17
FEWEST = 3  # comparisons of one cut, to judge a rate by
BASE, TWIN = "base", "twin"  # the workload, and the same workload under another name
#: Rounds of the pool, and what it holds besides both of these.
DEPTHS = {"quick": (10, ("slowed-5",)), "full": (60, tuple(SLOWED)), "deep": (60, tuple(SLOWED))}


class Still(Telemetry):
    """Reads nothing between cycles: for what is too short to be disturbed."""

    def due(self) -> bool:
        """Never."""
        return False


def calibrate(depth: str, results_root: str = "") -> Path:
    """Runs all checks of that depth; returns the calibration's folder.

    Args:
        depth: quick (under a minute), full (minutes), or deep: the pool is a sweep of a real model (most of an hour),
            which is gone on with where it was interrupted.
        results_root: folder of run folders.
    """
    swept = sweep(results_root) if depth == "deep" else None  # first: it takes long, and can be gone on with
    folder = paths.results_root(results_root) / "calibration" / new_run_id("cpu")
    config = {
        "schema_version": 1, "run_id": folder.name, "kind": "calibration", "depth": depth,
        "created": environment.now(), "rounds": DEPTHS[depth][0], "protocol": PROTOCOL, "seed": SEED,
        "sweep": swept.run_id if swept else None,
    }  # fmt: skip
    paths.write_json(folder / "env.json", environment.capture())
    paths.write_json(folder / "config.json", config)
    checks: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "overhead": overhead,
        "sleep": sleeps,
        "allocation": lambda: allocations(folder),
        "pool": lambda: of_sweep(swept.measured()) if swept else pool(folder, *DEPTHS[depth], SEED),
        "coverage": coverage,
    }
    if swept:
        shutil.copyfile(swept.raw, folder / SWEPT)
    progress = Progress(len(checks))
    for name, check in checks.items():
        for reading in check():
            paths.append_line(folder / "checks.jsonl", json.dumps({"check": name} | reading))
        progress.step(name)
    paths.write_json(folder / "summary.json", summarise(folder))
    return folder


def sweep(results_root: str = "") -> Run:
    """The pool of a deep calibration: one cell of the embedded model and its slowed variants, as any sweep.

    Its arithmetic has one thread, like that of the other depths: a virtual machine's cores may come to share one of the
    host's, and then two threads run at two speeds, by turns; that would be told of the machine, not of the instrument.
    """
    from distilbench.bench import design
    from distilbench.bench.sweep import sweep as measure

    given = {
        "profile": "full", "source": "embedded", "variants": ["sdpa", *SLOWED], "batch_sizes": [8],
        "length_policies": ["fixed-32"], "samples_per_cycle": 64, "passes": ["timing"], "control": True,
        "repetitions": DEPTHS["deep"][0], "warmup_seconds": 0.5, "warmup_max_seconds": 5.0, "min_seconds": 1.0,
        "max_seconds": 3.0, "ceiling_s": 0.0, "heap": "keep", "num_threads": 1,
        "results_root": str(paths.results_root(results_root) / "calibration" / "sweeps"),  # it is no run of a study
    }  # fmt: skip
    resolved = params.resolve("distilbert", given)
    run = design.start(resolved)
    measure(run, resolved)
    return run


def of_sweep(measured: list[Repetition]) -> Iterator[dict[str, Any]]:
    """Readings of the pool from the repetitions of a sweep."""
    for record in measured:
        what = record.variant if record.variant in SLOWED else TWIN if record.control_of else BASE
        settled = record.warmup.settled if record.warmup else None
        told = {"latency_ms": record.latency_ms, "n_iterations": record.n_iterations, "settled": settled}
        yield {"what": what, "round": record.repetition} | told


# ------------------------------------------------------------------ readings


def overhead(cycles: int = 400) -> Iterator[dict[str, Any]]:
    """A model that does nothing: what a reading adds to a time, and what the loop takes around it, in µs."""
    for _ in range(5):
        loop = Loop(PROTOCOL, [lambda: None] * 8, [1] * 8, HostClock(), Still())
        start = time.perf_counter()
        for cycle in range(cycles):
            loop._cycle(cycle, warmup=False)
        spent_us = (time.perf_counter() - start) * 1e6
        readings_us = [row["latency_ms"] * 1e3 for row in loop.rows]
        yield {"reading_us": median(readings_us), "loop_us": spent_us / len(readings_us)}


def sleeps() -> Iterator[dict[str, Any]]:
    """Forwards that sleep for a known time."""
    for wanted_ms in SLEEPS_MS:
        loop = Loop(PROTOCOL, [lambda ms=wanted_ms: time.sleep(ms / 1e3)] * 8, [1] * 8, HostClock(), Still())
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
    for repetitions in (MIN_REPETITIONS, traces.USUAL):
        for kind, share in traces.coverages(repetitions).items():
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


def allocate(job_file: Path) -> int:
    """Takes memory between two marks, as the memory pass does with a forward, and says what it saw."""
    import torch

    from distilbench.collectors.memory import Phases, rss_MiB

    job, phases = json.loads(job_file.read_text(encoding="utf-8")), Phases(torch.device("cpu"))
    phases.mark("load")
    before = rss_MiB()
    block = np.ones(job["MiB"] * 2**20, dtype=np.uint8)
    phases.mark("first")
    found = {"measured_MiB": phases.peaks_rss_MiB.get("first", phases.highest_rss_MiB) - before, "bytes": block.nbytes}
    paths.write_json(job_file.with_suffix(".result.json"), found)
    return 0


# ------------------------------------------------------------------ what they say


def summarise(folder: Path) -> dict[str, Any]:
    """summary.json of a calibration: each check with truth, reading, bound and verdict; computed from its readings."""
    by_check: dict[str, list[dict[str, Any]]] = {}
    for reading in _readings(folder):
        by_check.setdefault(reading["check"], []).append(reading)
    config = paths.read_json(folder / "config.json")
    pooled: dict[str, dict[int, float]] = {}
    for reading in by_check.get("pool", []):
        pooled.setdefault(reading["what"], {})[reading["round"]] = reading["latency_ms"]
    return {
        "schema_version": 1,
        "run_id": config["run_id"],
        "depth": config["depth"],
        "checks": [
            *_overhead_says(by_check.get("overhead", [])),
            *map(_sleep_says, by_check.get("sleep", [])),
            *map(_allocation_says, by_check.get("allocation", [])),
            *judged(pooled, config["seed"]),
            *map(_coverage_says, by_check.get("coverage", [])),
        ],
    }


def _readings(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "checks.jsonl").read_text(encoding="utf-8").splitlines()]


def _says(check: str, truth: str, measured: str, bound: str, ok: bool | None, **numbers: Any) -> dict[str, Any]:
    """One check; `ok` is None where a number is reported and nothing is demanded."""
    return {"check": check, "truth": truth, "measured": measured, "bound": bound, "ok": ok} | numbers


def _overhead_says(readings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, what in (("reading_us", "added to a time"), ("loop_us", "around an iteration")):
        if values := [reading[name] for reading in readings]:
            middle = median(values)
            yield _says(f"overhead {what}", "0 µs", f"{middle:.2f} µs", "below 5 µs", middle < 5, us=middle)


SLACK_MS = 0.15  # the kernel may wake a sleeper 50 µs late (prctl(2), PR_SET_TIMERSLACK), and a virtual machine later


def _sleep_says(reading: dict[str, Any]) -> dict[str, Any]:
    wanted, measured = reading["wanted_ms"], reading["measured_ms"]
    ok = -0.001 <= measured - wanted <= 0.01 * wanted + SLACK_MS
    bound = f"1 % and {SLACK_MS:g} ms of timer slack"
    return _says(f"sleep of {wanted:g} ms", f"{wanted:g} ms", f"{measured:.3f} ms", bound, ok, ms=measured)


def _allocation_says(reading: dict[str, Any]) -> dict[str, Any]:
    wanted, measured = reading["wanted_MiB"], reading["measured_MiB"]
    ok = abs(measured / wanted - 1) <= 0.02
    return _says(f"allocation of {wanted} MiB", f"{wanted} MiB", f"{measured:.1f} MiB", "2 %", ok, MiB=measured)


def judged(pooled: dict[str, dict[int, float]], seed: int, size: int = 10, cuts: int = 500) -> list[dict[str, Any]]:
    """How often groups of rounds tell equal things apart (a false verdict), and slowed ones (a true one).

    The rates are over many cuts of the pool into groups. These share rounds, so the Wilson interval counts as many
    comparisons as one cut has: those are independent.

    Args:
        pooled: medians of processes by round, of BASE, TWIN and slowed ones.
        seed: of the cuts.
        size: rounds in a group: the default number of repetitions of a full run.
        cuts: how many.
    """
    found = []
    for what in sorted(pooled.keys() - {BASE}, key=lambda name: SLOWED.get(name, 0.0)):
        rounds = sorted(pooled[BASE].keys() & pooled[what].keys())
        base, other = ([pooled[name][number] for number in rounds] for name in (BASE, what))
        n = len(rounds) // size
        check = "equal things told apart" if what == TWIN else f"slow-down of {SLOWED[what]:.0%} found"
        if not n:
            bound = f"needs {size} rounds, the pool has {len(rounds)}"
            found.append(_says(check, "never" if what == TWIN else "always", "–", bound, None))
            continue
        rates = traces.told_apart(base, other, size, cuts, seed)
        if what == TWIN:
            false = rates.get("FASTER", 0.0) + rates.get("SLOWER", 0.0)
            found.append(_rate(check, "never", false, n, at_most=0.05))
        else:
            demanded = 0.95 if SLOWED[what] >= 0.05 else None
            found.append(_rate(check, "always", rates.get("SLOWER", 0.0), n, at_least=demanded))
    return found + list(_drift_says(list(pooled.get(BASE, {}).values()), size))


def _drift_says(base: list[float], size: int) -> Iterator[dict[str, Any]]:
    """What the machine does meanwhile: the pool's first rounds against its last, as two runs would be compared."""
    if len(base) >= 2 * size:
        drift = ratio_interval(base[:size], base[-size:])
        said = f"{verdict_of(drift)} ({drift[0]:.3f} to {drift[1]:.3f})"
        yield _says("first rounds against the last", "SAME", said, "reported", None, interval=list(drift))


def _rate(
    check: str, truth: str, rate: float, n: int, at_most: float | None = None, at_least: float | None = None
) -> dict[str, Any]:
    low, high = wilson_interval(round(rate * n), n)
    bound, ok = "reported", None
    if n < FEWEST:
        bound, at_most, at_least = f"reported: fewer than {FEWEST} comparisons judge nothing", None, None
    if at_most is not None:
        bound, ok = f"interval reaches {at_most:.0%} or below", low <= at_most
    if at_least is not None:
        bound, ok = f"interval reaches {at_least:.0%} or above", high >= at_least
    measured = f"{rate:.1%} ({n} independent comparisons: {low:.0%} to {high:.0%})"
    return _says(check, truth, measured, bound, ok, rate=rate, comparisons=n, interval=[low, high])


def _coverage_says(reading: dict[str, Any]) -> dict[str, Any]:
    share, demanded = reading["share"], reading["kind"] != "two-mode"
    ok = CLAIMED[0] <= share <= CLAIMED[1] if demanded else None
    check = f"intervals of {reading['repetitions']} repetitions, {reading['kind']} traces"
    return _says(check, "95 %", f"{share:.1%}", "93 % to 97 %" if demanded else "reported", ok, share=share)


def table(summary: dict[str, Any]) -> pd.DataFrame:
    """One row per check, every value as text."""
    titles = ("check", "truth", "measured", "bound")
    rows = [{name: check[name] for name in titles} | {"verdict": _verdict(check)} for check in summary["checks"]]
    return pd.DataFrame(rows)


def _verdict(check: dict[str, Any]) -> str:
    """A rate over a few comparisons can contradict its bound, but not show that it is met."""
    met = "not refuted" if "comparisons" in check else "ok"
    return {True: met, False: "OFF", None: "reported"}[check["ok"]]


def published(depth: str) -> Path | None:
    """The published calibration of that depth."""
    return next((f for f in all_published() if paths.read_json(f / "config.json")["depth"] == depth), None)


def all_published() -> list[Path]:
    """Folders of all published calibrations, oldest first."""
    return sorted(file.parent for file in (paths.published_root() / "calibration").glob("*/summary.json"))


def caption(folder: Path) -> str:
    """What a table of a calibration is of."""
    config, env = paths.read_json(folder / "config.json"), paths.read_json(folder / "env.json")
    cores = f"{(count := len(env['cpu']['affinity']))} core{'s' if count > 1 else ''}"
    return (
        f"A {config['depth']} calibration on {env['cpu']['model']}, {cores}, {config['created'][:10]}; "
        f"pool of {config['rounds']} rounds, in processes of one thread{_elsewhere(env)}"
    )


def _elsewhere(env: dict[str, Any]) -> str:
    """Says where no published run was made on a machine like that of the calibration."""

    def machine(of: dict[str, Any]) -> tuple[str, int]:
        return of["cpu"]["model"], len(of["cpu"]["affinity"])

    folders = [file.parent for file in paths.published_root().glob("*/*/raw.jsonl")]
    others = {machine(paths.read_json(folder / "env.json")) for folder in folders}
    return "; no published run is of this machine" if others and machine(env) not in others else ""


def problems(folder: Path) -> list[str]:
    """What summary.json says otherwise than the readings do, and these than the sweep; none: it can be believed."""
    found = verify.differences(paths.read_json(folder / "summary.json"), summarise(folder), "summary.json")
    if (folder / SWEPT).is_file():
        again = [{"check": "pool"} | r for r in of_sweep([r for r in read_raw(folder / SWEPT)[0] if r.latency_ms])]
        told = [reading for reading in _readings(folder) if reading["check"] == "pool"]
        found += verify.differences({"pool": told}, {"pool": again}, "checks.jsonl")
    return found
