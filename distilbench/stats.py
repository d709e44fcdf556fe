"""Statistics of measurements: pure functions of numbers, no torch, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

PERCENTILES = (50, 90, 95, 99, 99.9)
Z95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), which holds its coverage near 0 and 1 too.

    Written out: summaries hold its values, and `scipy.stats` rounds them otherwise and takes a second to import.

    Raises:
        ValueError: n is below 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


THRESHOLD = 0.02  # what makes no difference in practice
Verdict = Literal["FASTER", "SLOWER", "SAME", "AMBIGUOUS"]
CLAIMED = (0.93, 0.97)  # an interval that covers so often, simulated, is what it says: a 95 % interval
MIN_REPETITIONS = 5  # below it an interval says more about luck than about the machine


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean of per-repetition values (each from a fresh process, so independent).

    Over so few values a percentile bootstrap covers too rarely (0.84 at five, where 0.95 is claimed); this one holds
    what it claims (`tests/ground/test_stats.py` simulates it). Student (1908), "The probable error of a mean",
    Biometrika 6(1).

    Returns:
        Low and high end in the unit of the values; None below five values.
    """
    if len(values) < MIN_REPETITIONS:
        return None
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without the import of scipy.stats

    array = np.asarray(values, dtype=float)
    quantile = float(stdtrit(array.size - 1, 0.5 + confidence / 2))
    half = quantile * float(array.std(ddof=1)) / math.sqrt(array.size)
    return float(array.mean()) - half, float(array.mean()) + half


LEAST_LEVEL = 15 / 16  # how often the range of five holds the median of what they were drawn from


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval of the median of per-repetition values: from the k-th lowest of them to the k-th highest.

    It belongs to the median, supposes nothing of how processes are distributed, and holds what `median_level` says.
    Of up to eight values it is their range. David & Nagaraja (2003), "Order Statistics", section 7.1.

    Returns:
        Low and high end, two of the values; None below five values.
    """
    if len(values) < MIN_REPETITIONS:
        return None
    ordered, rank = sorted(values), median_rank(len(values))
    return ordered[rank - 1], ordered[-rank]


def median_rank(n: int) -> int:
    """The k of the narrowest interval of the median that n values bear: one that holds it in 15 of 16 cases or more."""
    return max(k for k in range(1, n // 2 + 2) if k == 1 or median_level(n, k) >= LEAST_LEVEL)


def median_level(n: int, rank: int | None = None) -> float:
    """How often the interval from the rank-th lowest to the rank-th highest of n values holds the median.

    Either end is on the wrong side only where fewer than `rank` of n fall on one side of the median, as coins do.
    """
    rank = median_rank(n) if rank is None else rank
    return 1 - 2 * sum(math.comb(n, i) for i in range(rank)) / 2**n


def ratio_interval(
    base: Sequence[float], other: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Welch's t interval of other / base, on logarithms of per-repetition values of two runs.

    Logarithms make a ratio symmetric (twice and half are as far from 1); the two runs need not vary alike, nor have
    the same number of repetitions. Welch (1947), Biometrika 34(1/2).

    Returns:
        Low and high end of the ratio; None where either has less than five values.
    """
    if min(len(base), len(other)) < MIN_REPETITIONS:
        return None
    from scipy.stats import ttest_ind  # here: it takes a second or two, which a worker must not pay

    logs = [np.log(np.asarray(values, dtype=float)) for values in (other, base)]
    if not any(values.std() for values in logs):
        return (math.exp(logs[0].mean() - logs[1].mean()),) * 2
    interval = ttest_ind(*logs, equal_var=False).confidence_interval(confidence)
    return math.exp(interval.low), math.exp(interval.high)


def paired_ratio_interval(
    base: Sequence[float], other: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Student's t interval of other / base, on logarithms of values that were measured in turn, pair by pair.

    What drifts slowly is the same for both of a pair and drops out, so this is narrower than `ratio_interval` where
    repetitions of two things were interleaved.

    Returns:
        Low and high end of the ratio; None below five pairs.
    """
    logs = np.log(np.asarray(other, dtype=float)) - np.log(np.asarray(base, dtype=float))
    interval = t_interval(logs, confidence)
    return None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))


def verdict_of(interval: tuple[float, float] | None, threshold: float = THRESHOLD) -> Verdict:
    """FASTER or SLOWER where the whole interval is beyond the threshold, SAME where it is within, else AMBIGUOUS.

    The threshold is symmetric for ratios of times: 2 % slower is 1.02, 2 % faster is 1 / 1.02.
    """
    if interval is None:
        return "AMBIGUOUS"
    (low, high), most = interval, 1 + threshold
    if high < 1 / most:
        return "FASTER"
    if low > most:
        return "SLOWER"
    return "SAME" if 1 / most <= low and high <= most else "AMBIGUOUS"


def converged(cycles: Sequence[Sequence[float]]) -> bool:
    """Whether a warm-up is over: the last two half-windows agree in median (2 %) and in both quartiles (5 %).

    A window holds whole cycles, so that both halves went over the same batches; it grows with the warm-up (half of all
    cycles), and so forgets its cold beginning. The bounds of the quartiles are pyperf's (pyperf/_worker.py).
    """
    half = max(1, len(cycles) // 4)
    if len(cycles) < 2 * half:
        return False
    first, last = (np.concatenate(part) for part in (cycles[-2 * half : -half], cycles[-half:]))
    bounds = ((25, 0.05), (50, 0.02), (75, 0.05))
    return all(abs(np.percentile(last, p) / np.percentile(first, p) - 1) <= most for p, most in bounds)


def half_width(medians: Sequence[float]) -> float | None:
    """Half of the 95 % interval over medians of whole cycles, as a share of their mean; None below five cycles."""
    interval = t_interval(medians)
    return None if interval is None else (interval[1] - interval[0]) / (interval[1] + interval[0])


def autocorrelation(values: Sequence[float]) -> float | None:
    """Lag-1 autocorrelation: how much an iteration resembles the one before; None where nothing varies.

    Near 0 the iterations tell as much as their number; near 1 they repeat each other.
    """
    centred = np.asarray(values, dtype=float) - np.mean(values)
    total = float(centred @ centred)
    return float(centred[:-1] @ centred[1:]) / total if total > 0 and len(values) > 2 else None


def outliers(values: Sequence[float]) -> int:
    """How many values lie beyond Tukey's outer fences, three interquartile ranges out; counted, never dropped."""
    low, high = np.percentile(values, [25, 75])
    reach = 3 * (high - low)
    return int(sum(value < low - reach or value > high + reach for value in values))


def variance_split(groups: Sequence[Sequence[float]]) -> dict[str, float] | None:
    """Variance between processes and within them (one-way random effects; Kalibera & Jones 2013, section 6).

    Returns:
        `within` and `between` in the unit squared, and `share_between` of the variance of a process's mean; None below
        two processes or where nothing varies. `between` is the variance of means less what iterations explain of it, at
        least 0.
    """
    if len(groups) < 2 or min(map(len, groups)) < 2:
        return None
    within = float(np.mean([np.var(group, ddof=1) for group in groups]))
    of_means = float(np.var([np.mean(group) for group in groups], ddof=1))
    explained = float(np.mean([np.var(group, ddof=1) / len(group) for group in groups]))
    between = max(0.0, of_means - explained)
    if between + explained == 0:
        return None
    return {"within": within, "between": between, "share_between": between / (between + explained)}


def node_effects(rows: Sequence[tuple[str, str, int, float]]) -> dict[str, object] | None:
    """How much longer everything takes on one node than on another, and whether that is more than chance.

    Logarithms of latencies are fitted by cell and by node (least squares, two-way without interaction), so that a node
    that happened to get the long cells is not called slow. What is left is averaged by round: a round was measured in
    one go on one node and shares that node's hour, so rounds are what is independent. Whether nodes differ is then a
    one-way analysis of variance over rounds (Fisher 1925, "Statistical Methods for Research Workers").

    Args:
        rows: (node, cell, round, latency); only cells that several nodes measured say anything.

    Returns:
        `ratios`: by node, against the geometric mean of all nodes; `p_value` of the F test; `rounds`. The p value is
        None where each node has a single round; all of it None where no cell was measured on two nodes.
    """
    on: dict[str, set[str]] = {}
    for node, cell, _, _ in rows:
        on.setdefault(cell, set()).add(node)
    rows = [row for row in rows if len(on[row[1]]) > 1]
    nodes, cells = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    if not rows:
        return None
    logs = np.log([row[3] for row in rows])
    design = np.zeros((len(rows), len(cells) + len(nodes)))
    for i, (node, cell, _, _) in enumerate(rows):
        design[i, cells.index(cell)] = design[i, len(cells) + nodes.index(node)] = 1
    fitted = np.linalg.lstsq(design, logs, rcond=None)[0]
    effects = fitted[len(cells) :] - fitted[len(cells) :].mean()
    rest: dict[tuple[str, int], list[float]] = {}
    for i, (node, cell, number, _) in enumerate(rows):
        rest.setdefault((node, number), []).append(logs[i] - fitted[cells.index(cell)])
    rounds = {node: [float(np.mean(left)) for (at, _), left in rest.items() if at == node] for node in nodes}
    ratios = {node: math.exp(effect) for node, effect in zip(nodes, effects, strict=True)}
    return {"ratios": ratios, "p_value": _anova(list(rounds.values())), "rounds": len(rest)}


def _anova(groups: Sequence[Sequence[float]]) -> float | None:
    """The p value of a one-way analysis of variance; None where no group has two values, or nothing varies."""
    from scipy.stats import f_oneway

    within = sum(float(np.var(group)) * len(group) for group in groups)
    if sum(map(len, groups)) == len(groups) or within < 1e-24:  # what rounding leaves of nothing is no variance
        return None
    return float(f_oneway(*groups).pvalue)


@lru_cache
def samples_needed(percentile: float, confidence: float = 0.99) -> int:
    """How many samples support a tail percentile: the smallest n whose estimate can be trusted.

    As in MLPerf's early stopping (mlcommons/inference_policies) with one allowed sample beyond the percentile: n is
    enough when, were the true share beyond it larger than 1 - p, at most one such sample would be seen with
    probability below 1 - confidence. Gives 64 for p90, 130 for p95, 662 for p99 and 6,636 for p99.9.
    """
    if not 50 <= percentile < 100:
        raise ValueError(f"percentile must be in [50, 100), got {percentile}")
    tail, n = 1 - percentile / 100, 2
    while (1 - tail) ** n + n * tail * (1 - tail) ** (n - 1) > 1 - confidence:
        n += 1
    return n


def summary_of(values: Sequence[float]) -> dict[str, float | int | bool]:
    """Median, mean, spread and percentiles of one value or more, each percentile with whether n supports it."""
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
    for p in PERCENTILES:
        result[f"p{p}"] = float(np.percentile(array, p))
        result[f"p{p}_licensed"] = p == 50 or array.size >= samples_needed(p)
    return result
