"""Traces whose truth is known, and groups drawn from a pool of real ones: what intervals and verdicts are tried on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from distilbench.stats import paired_ratio_interval, t_interval, verdict_of

USUAL = 10  # repetitions of a full run by default
LARGEST = 80_000  # simulated repetitions: 4,000 intervals of 20, fewer of more, so that they fit into memory
KINDS = ("smooth", "drifting", "spiky", "two-mode")


def processes(kind: str, generator: np.random.Generator, trials: int, repetitions: int, n: int = 60) -> np.ndarray:
    """Medians of simulated repetitions of n iterations each of about 100 ms, each process 1 % its own.

    Args:
        kind: smooth (normal noise of 1 %), drifting (each process by a slope of its own, as clocks and temperatures
            do), spiky (one iteration in twenty takes half as long again) or two-mode (one process in four is 10 %
            slower, as where memory or a neighbour fell badly).

    Returns:
        ms, float64 (trials, repetitions).
    """
    own = 100 * (1 + 0.01 * generator.standard_normal((trials, repetitions, 1)))
    noise = generator.standard_normal((trials, repetitions, n))
    if kind == "drifting":
        slope = 0.02 * generator.standard_normal((trials, repetitions, 1))
        return np.median(own * (1 + slope * np.linspace(-1, 1, n)) + noise, axis=2)
    if kind == "spiky":
        noise = noise + 50 * (generator.random(noise.shape) < 0.05)
    if kind == "two-mode":
        own = own * (1 + 0.1 * (generator.random(own.shape) < 0.25))
    return np.median(own + noise, axis=2)


def coverage(kind: str, repetitions: int, trials: int = 4000, seed: int = 20261122) -> float:
    """How often the interval of that many repetitions holds the truth, where it claims 0.95."""
    generator = np.random.default_rng(seed)
    truth = processes(kind, generator, trials, 10).mean()
    simulated = processes(kind, generator, trials, repetitions)
    return float(np.mean([low <= truth <= high for low, high in map(t_interval, simulated)]))


@lru_cache
def coverages(repetitions: int) -> dict[str, float]:
    """By kind of trace, how often the 95 % interval of that many repetitions holds the truth; from a fixed seed.

    Args:
        repetitions: at least `stats.MIN_REPETITIONS`, below which there is no interval.
    """
    trials = min(4000, LARGEST // repetitions)
    return {kind: coverage(kind, repetitions, trials) for kind in KINDS}


def told_apart(base: Sequence[float], other: Sequence[float], size: int, cuts: int, seed: int) -> dict[str, float]:
    """Share of each verdict over disjoint groups of rounds that are drawn from a pool, again and again.

    Args:
        base, other: medians of repetitions of two things, one of each round of the pool.
        size: rounds in a group.
        cuts: how often the pool is cut into groups.
    """
    order, verdicts = random.Random(seed), Counter[str]()  # its draws stay the same from version to version
    for _ in range(cuts):
        drawn = order.sample(range(len(base)), len(base))
        for start in range(0, len(drawn) - size + 1, size):
            group = drawn[start : start + size]
            interval = paired_ratio_interval([base[i] for i in group], [other[i] for i in group])
            verdicts[verdict_of(interval)] += 1
    return {verdict: count / verdicts.total() for verdict, count in verdicts.items()}
