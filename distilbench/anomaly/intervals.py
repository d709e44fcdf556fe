"""Intervals of many means at once: each by itself, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.special import stdtrit

EXHAUSTIVE = 12  # rounds up to which all patterns of signs are tried; beyond, as many as these give are drawn


@dataclass(frozen=True)
class Intervals:
    """Of k means over rounds.

    Attributes:
        mean: (k,).
        alone: (k, 2) Student's t interval of each by itself: of many, one in twenty misses its truth.
        together: (k, 2) intervals that all hold at once in 95 % of runs.
    """

    mean: np.ndarray
    alone: np.ndarray
    together: np.ndarray


def of_means(values: np.ndarray, confidence: float = 0.95) -> Intervals:
    """Pointwise and simultaneous intervals of the means of columns whose rows are independent rounds.

    Simultaneous by the largest of all |t| (Westfall & Young 1993): its distribution comes from turning the signs of
    whole rounds about their mean (Winkler et al. 2014, NeuroImage 92), which keeps how the columns go together. A
    column whose few rounds happen to agree is not known better than most: no standard error counts as smaller than the
    median one (after the floor of Tusher, Tibshirani & Chu 2001, PNAS 98(9)). Without that floor noise of two modes
    finds a deviation in every second run.

    Args:
        values: (rounds, k); at least `stats.MIN_REPETITIONS` rounds.
        confidence: of each by itself, and of all together.
    """
    rounds = len(values)
    mean = values.mean(axis=0)
    centred = values - mean
    squares = (centred**2).sum(axis=0)
    error = np.sqrt(squares / (rounds - 1) / rounds)
    single = float(stdtrit(rounds - 1, 0.5 + confidence / 2))
    largest = max(single, _quantile_of_largest(centred, squares, confidence))  # all are never surer than one alone
    half = largest * np.maximum(error, np.median(error))
    return Intervals(mean, _around(mean, single * error), _around(mean, half))


def _around(mean: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.stack([mean - half, mean + half], axis=1)


def _quantile_of_largest(centred: np.ndarray, squares: np.ndarray, confidence: float) -> float:
    """Of the largest |t| over all columns, over patterns of signs."""
    rounds = len(centred)
    means = _signs(rounds) @ centred / rounds
    errors = np.sqrt(np.maximum(squares - rounds * means**2, 0) / (rounds - 1) / rounds)
    errors = np.maximum(errors, np.median(errors, axis=1, keepdims=True))
    known = np.divide(np.abs(means), errors, out=np.zeros_like(means), where=errors > 0)
    return float(np.quantile(known.max(axis=1), confidence, method="higher"))


@lru_cache
def _signs(rounds: int) -> np.ndarray:
    """(patterns, rounds) of 1 and -1; the first round keeps its sign, since a pattern and its opposite say the same."""
    if rounds <= EXHAUSTIVE:
        return np.array([(1.0, *rest) for rest in product((1.0, -1.0), repeat=rounds - 1)])
    drawn = np.random.default_rng(20261127).choice([1.0, -1.0], (2 ** (EXHAUSTIVE - 1), rounds))
    drawn[0] = 1.0
    return drawn
