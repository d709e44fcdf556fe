"""Linear scaling: latency = a + b n, by a line that a few deviating sizes cannot bend.

A batch of n samples takes a, whatever its size, and b for each sample. Errors are relative (1 % of a short forward is
as likely as 1 % of a long one), so residuals are too. The line is an MM-estimate (Yohai 1987): least median of squares
over all lines through two sizes (Rousseeuw 1984), then Tukey's biweight with the scale of that first line, which gives
a size that lies far off no weight at all.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

FEWEST_OTHERS = 3  # a line through two sizes has no residual: nothing would show that it is none
ROBUST_FROM = 5  # sizes; below, no majority can outvote one of them, and plain least squares is as good
BIWEIGHT = 4.685  # 95 % as efficient as least squares where all errors are normal
LEAST_SCALE = 0.002  # relative: else sizes on one line to the last digit would be rejected for rounding
STEPS = 50


def predictor(sizes: np.ndarray, latency_ms: np.ndarray, at: float) -> np.ndarray:
    """How the latencies of sizes predict that of another one: a linear combination of them.

    Args:
        sizes: (k,) batch sizes, at least `FEWEST_OTHERS` of them; `at` is not among them.
        latency_ms: (k,) of a batch.
        at: the batch size to predict.

    Returns:
        (k,) coefficients h; the prediction is h @ latency_ms. Applied to an operator's times they say what that
        operator would take on the same line, and what all operators deviate by adds up to what their sum deviates by.
    """
    weights = _weights(sizes, latency_ms)
    total = weights.sum()
    mean = weights @ sizes / total
    spread = weights @ (sizes - mean) ** 2
    return weights / total + (at - mean) * weights * (sizes - mean) / spread


def line(sizes: np.ndarray, latency_ms: np.ndarray) -> tuple[float, float]:
    """(a in ms, b in ms per sample) of the robust line over all these sizes."""
    fixed = float(predictor(sizes, latency_ms, 0.0) @ latency_ms)
    return fixed, float(predictor(sizes, latency_ms, 1.0) @ latency_ms) - fixed


def deviations(sizes: np.ndarray, latency_ms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each size is from the line through the others, round by round.

    The weights of the others come from their means over the rounds; the line is then drawn in each round, so that what
    slows a whole round down drops out, and what is uncertain about the line is in the spread of the rounds.

    Args:
        sizes: (k,) batch sizes.
        latency_ms: (rounds, k) of one process each.

    Returns:
        (rounds, k) logarithms of measured over predicted; (k, k) coefficients, row by row those of `predictor`, 0 for
        the size itself.
    """
    centre = np.exp(np.log(latency_ms).mean(axis=0))
    coefficients = np.zeros((sizes.size, sizes.size))
    for k in range(sizes.size):
        others = np.arange(sizes.size) != k
        coefficients[k, others] = predictor(sizes[others], centre[others], sizes[k])
    return np.log(latency_ms) - np.log(latency_ms @ coefficients.T), coefficients


def _weights(sizes: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    """(k,) weights of the final line's least squares."""
    relative = 1 / latency_ms**2
    if sizes.size < ROBUST_FROM:
        return relative
    residuals = _least_median(sizes, latency_ms)
    correction = 1.4826 * (1 + 5 / (sizes.size - 2))  # Rousseeuw & Leroy (1987), section 5.1: of few sizes
    scale = max(correction * float(np.median(np.abs(residuals))), LEAST_SCALE)
    for _ in range(STEPS):
        weights = np.clip(1 - (residuals / (BIWEIGHT * scale)) ** 2, 0, None) ** 2 * relative
        before, residuals = residuals, _residuals(sizes, latency_ms, weights)
        if np.abs(residuals - before).max() < 1e-7:
            break
    return weights


def _residuals(sizes: np.ndarray, latency_ms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean, height = weights @ sizes / weights.sum(), weights @ latency_ms / weights.sum()
    slope = weights @ ((sizes - mean) * latency_ms) / (weights @ (sizes - mean) ** 2)
    return (latency_ms - height - slope * (sizes - mean)) / latency_ms


def _least_median(sizes: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    """(k,) relative residuals of the line through two of the sizes that most of them are near to."""
    i, j = np.array(list(combinations(range(sizes.size), 2))).T
    slope = (latency_ms[j] - latency_ms[i]) / (sizes[j] - sizes[i])
    fixed = latency_ms[i] - slope * sizes[i]
    residuals = (latency_ms - fixed[:, None] - slope[:, None] * sizes) / latency_ms
    most = np.sort(np.abs(residuals), axis=1)[:, sizes.size // 2]  # two of them are 0, being on the line
    return residuals[np.argmin(most)]
