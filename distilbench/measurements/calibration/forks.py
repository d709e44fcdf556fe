"""Repetitions that are forked from one process against fresh ones: how their medians and their spread compare.

A sweep of one cell is measured in both ways, in turns: some repetitions that one process forked, then as many fresh
ones. All forks of a process share its memory layout, so what is independent is such a block, and not a fork: intervals
are Student's t over pairs of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import median, stdev
from typing import Any

from distilbench.measurements.sweep.records import Repetition
from distilbench.stats import MIN_REPETITIONS, paired_ratio_interval, verdict_of

CHECK = "starts"  # the name of its readings
SERVERS, EACH = 10, 6  # processes that fork, and forks of each
WAYS = ("forked", "fresh")


def of_sweeps(measured: Iterable[Repetition], each: int) -> Iterator[dict[str, Any]]:
    """Readings from the repetitions of both sweeps; `block` counts the processes that forked, and what came with them.

    Args:
        measured: finished repetitions.
        each: repetitions in a block.
    """
    for record in measured:
        at = {"start": record.start, "block": record.repetition // each, "round": record.repetition}
        settled = record.warmup.settled if record.warmup else None
        yield at | {"latency_ms": record.latency_ms, "n_iterations": record.n_iterations, "settled": settled}


def compared(readings: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the readings say, each as a check that demands nothing: medians, spread, and medians from block to block."""
    blocks: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    for reading in readings:
        blocks[reading["start"]].setdefault(reading["block"], []).append(reading["latency_ms"])
    both = sorted(block for block in blocks["forked"].keys() & blocks["fresh"].keys() if _compares(blocks, block))
    if len(both) < MIN_REPETITIONS:
        return
    forked, fresh = ([blocks[way][block] for block in both] for way in WAYS)
    size = {"blocks": len(both), "processes": sum(map(len, forked))}
    yield _medians(*([median(block) for block in side] for side in (forked, fresh))) | size
    yield _spread(*([_spread_of(block) for block in side] for side in (forked, fresh))) | size
    yield _between(*(_spread_of([median(block) for block in side]) for side in (forked, fresh))) | size


def _compares(blocks: dict[str, dict[int, list[float]]], block: int) -> bool:
    """Whether both sides of a block have a spread, whose logarithm is taken."""
    return all(len(blocks[way][block]) > 1 and _spread_of(blocks[way][block]) > 0 for way in WAYS)


def _spread_of(values: Sequence[float]) -> float:
    """The standard deviation of logarithms: for small ones a share of the value."""
    return stdev(map(math.log, values))


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _medians(forked: list[float], fresh: list[float]) -> dict[str, Any]:
    found = _ratio(forked, fresh)
    verdict = verdict_of((found["low"], found["high"]))
    said = f"{verdict}: ratio {_written(found)}"
    return _says("medians", "SAME", said, verdict=verdict, **found)


def _spread(forked: list[float], fresh: list[float]) -> dict[str, Any]:
    found = _ratio(forked, fresh)
    verdict = "LESS" if found["high"] < 1 else "MORE" if found["low"] > 1 else "AMBIGUOUS"
    typical = {"forked": _geometric_mean(forked), "fresh": _geometric_mean(fresh)}
    said = f"{verdict}: {typical['forked']:.2%} against {typical['fresh']:.2%}, ratio {_written(found)}"
    return _says("spread", "equal", said, verdict=verdict, **typical, **found)


def _between(forked: float, fresh: float) -> dict[str, Any]:
    said = f"{forked:.2%} against {fresh:.2%}"
    return _says("medians from block to block", "equal", said, forked=forked, fresh=fresh)


def _ratio(forked: list[float], fresh: list[float]) -> dict[str, float]:
    """Forked over fresh, one value a block: the geometric mean of the ratios, and its 95 % interval."""
    low, high = paired_ratio_interval(fresh, forked)
    return {"ratio": _geometric_mean(forked) / _geometric_mean(fresh), "low": low, "high": high}


def _written(found: dict[str, float]) -> str:
    return f"{found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _says(what: str, truth: str, measured: str, **numbers: Any) -> dict[str, Any]:
    said = {"check": f"forked against fresh, {what}", "truth": truth, "measured": measured}
    return said | {"bound": "reported", "ok": None} | numbers
