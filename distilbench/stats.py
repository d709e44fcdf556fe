"""Statistics of measurements: pure functions of numbers, no torch, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), which holds its coverage near 0 and 1 too.

    Args:
        successes: how many of the n trials succeeded.
        n: number of trials, at least 1.
        z: normal quantile; the default gives 95 %.

    Raises:
        ValueError: n is below 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def licence_threshold(percentile: float, confidence: float = 0.99) -> int:
    """How many samples license a tail percentile: the smallest n whose estimate can be trusted.

    As in MLPerf's early stopping (mlcommons/inference_policies) with one allowed sample beyond the percentile: n is
    licensed when, were the true share beyond it larger than 1 - p, at most one such sample would be seen with
    probability below 1 - confidence. Gives 64 for p90, 130 for p95, 662 for p99.

    Args:
        percentile: between 50 and 100, exclusive.
        confidence: of the one-sided statement.
    """
    if not 50 <= percentile < 100:
        raise ValueError(f"percentile must be in [50, 100), got {percentile}")
    tail, n = 1 - percentile / 100, 2
    while (1 - tail) ** n + n * tail * (1 - tail) ** (n - 1) > 1 - confidence:
        n += 1
    return n


def summary_of(values: Sequence[float]) -> dict[str, float | int | bool]:
    """Median, mean, spread and percentiles of values, each percentile with whether n licenses it.

    Args:
        values: at least one number, any unit; the result has the same unit.
    """
    array = np.asarray(values, dtype=float)
    median = float(np.median(array))
    result: dict[str, float | int | bool] = {
        "n": array.size,
        "median": median,
        "mean": float(array.mean()),
        "min": float(array.min()),
        "max": float(array.max()),
        "std": float(array.std(ddof=1)) if array.size > 1 else 0.0,
        "mad": float(np.median(np.abs(array - median))),
    }
    for p in (50, 90, 95, 99):
        result[f"p{p}"] = float(np.percentile(array, p))
        result[f"p{p}_licensed"] = p == 50 or array.size >= licence_threshold(p)
    return result
