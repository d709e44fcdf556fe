"""What the readings of a calibration say of the instrument."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict

from distilbench import paths, simulated_traces
from distilbench.measurements.calibration import forks
from distilbench.measurements.sweep.records import Repetition
from distilbench.runs import verify
from distilbench.runs.rawfiles import read_raw
from distilbench.stats import CLAIMED, ratio_interval, verdict_of, wilson_interval

SLOWED = {"slowed-2": 0.02, "slowed-5": 0.05, "slowed-10": 0.10}  # variants of a sweep, and their shares
SWEPT = "sweep.raw.jsonl"  # the repetitions of the sweeps that a calibration made
FEWEST = 3  # comparisons of one cut, to judge a rate by
BASE, TWIN = "base", "twin"  # the workload, and the same workload under another name


class Reading(BaseModel):
    """A line of checks.jsonl: which check it belongs to, and what was read; the names of that are the check's own."""

    model_config = ConfigDict(extra="allow", frozen=True)
    check: str


def of_sweep(measured: Iterable[Repetition]) -> Iterator[dict[str, Any]]:
    """Readings of the pool from the repetitions of a sweep."""
    for record in measured:
        what = record.variant if record.variant in SLOWED else TWIN if record.control_of else BASE
        settled = record.warmup.settled if record.warmup else None
        told = {"latency_ms": record.latency_ms, "n_iterations": record.n_iterations, "settled": settled}
        yield {"what": what, "round": record.repetition} | told


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
            *forks.compared(by_check.get(forks.CHECK, [])),
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
        rates = simulated_traces.told_apart(base, other, size, cuts, seed)
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


def recompute(folder: Path, readings: list[Reading]) -> list[str]:
    """Where the readings of the pool, or of forks, differ from the sweeps that they are of."""
    if not (folder / SWEPT).is_file():
        return []
    swept = [record for record in read_raw(folder / SWEPT, Repetition)[0] if record.latency_ms]
    each = paths.read_json(folder / "config.json").get("each")  # of calibrations with forks
    name, again = (forks.CHECK, forks.of_sweeps(swept, each)) if each else ("pool", of_sweep(swept))
    recorded = [reading.model_dump() for reading in readings if reading.check == name]
    return verify.differences({name: recorded}, {name: [{"check": name} | one for one in again]}, "checks.jsonl")
