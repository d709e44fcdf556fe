"""What of a deviation its operators account for: measured, with an interval, or said to be unexplained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from distilbench.anomaly.intervals import of_means
from distilbench.anomaly.records import InputShape, Kernel, OperatorTime, Profiled, Size
from distilbench.stats import MIN_REPETITIONS

LEAST_SHARE = 0.05  # of a deviation: an operator with less explains nothing of use
SHOWN = 3  # shapes and kernels of an operator


@dataclass(frozen=True)
class Look:
    """What an operator is at one batch size: calls in a forward, its inputs, its kernels, the threads."""

    batch_size: int
    calls: float
    threads_used: float | None
    shapes: list[InputShape] | None
    kernels: list[Kernel] | None


@dataclass(frozen=True)
class Cause:
    """An operator whose time is not on its own line through the other sizes.

    Attributes:
        deviation_ms: of a batch, against that line; profiled.
        per_sample_ms, predicted_per_sample_ms: the same, per sample.
        share: of the whole deviation; share_ends: its 95 % interval, with those of all operators.
        here, smaller, larger: what it is at this size, and at the two sizes next to it.
    """

    operator: str
    deviation_ms: float
    per_sample_ms: float
    predicted_per_sample_ms: float
    share: float
    share_ends: tuple[float, float]
    here: Look
    smaller: Look | None
    larger: Look | None

    @property
    def changes(self) -> list[str]:
        """What is otherwise than at the sizes next to it."""
        looks = [self.here, *(look for look in (self.smaller, self.larger) if look)]
        said = []
        if not np.allclose([look.calls for look in looks], self.here.calls):
            said.append(_contrast("calls in a forward", looks, lambda look: f"{look.calls:.4g}"))
        names = [{one.kernel for one in look.kernels} for look in looks if look.kernels is not None]
        if any(one != names[0] for one in names):
            said.append(_contrast("kernels", looks, _kernels))
        threads = [look.threads_used for look in looks]
        if None not in threads and max(threads) - min(threads) >= 1:
            said.append(_contrast("threads that shared work", looks, lambda look: f"{look.threads_used:g}"))
        return said


@dataclass(frozen=True)
class Diagnosis:
    """Of one size that deviates.

    Attributes:
        deviation_ms: measured less predicted latency of a batch, without the profiler.
        causes: the operators that differ for sure, the largest share first.
        all_operators_share: what all operators together deviate by, of the deviation.
        profiled_share: what the plain forwards of the profiled processes deviate by, of the deviation.
        none: why there is no diagnosis; "" where there is one.
    """

    deviation_ms: float
    causes: list[Cause] = field(default_factory=list)
    all_operators_share: float | None = None
    profiled_share: float | None = None
    none: str = ""

    @property
    def unexplained_share(self) -> float:
        """What no operator that differs for sure accounts for."""
        return 1 - sum(cause.share for cause in self.causes)


def explain(sizes: list[Size], k: int, coefficients: np.ndarray, deviation_ms: float) -> Diagnosis:
    """The operators that account for what size k deviates by.

    Each operator's time is predicted by the line that predicted the latency: the same linear combination of the same
    sizes. So what the operators deviate by adds up, and what a constant cost of each call (the profiler's too) adds to
    every size cancels.

    Args:
        sizes: of the curve, in order.
        k: which of them deviates.
        coefficients: (len(sizes),) of its prediction, 0 at k.
        deviation_ms: measured less predicted.
    """
    needed = [size for size, weight in zip(sizes, coefficients, strict=True) if weight] + [sizes[k]]
    if lacking := [size for size in needed if size.profiled is None]:
        numbers = ", ".join(map(str, sorted(size.batch_size for size in lacking)))
        reason = next((size.profiled_reason for size in lacking if size.profiled_reason), "not profiled")
        return Diagnosis(deviation_ms, none=f"there are no operators of batch size {numbers}: {reason}")
    rounds = sorted(set.intersection(*(set(size.profiled.repetitions) for size in needed)))
    if len(rounds) < MIN_REPETITIONS:
        few = f"{len(rounds)} rounds have a profile of every size, and an interval needs {MIN_REPETITIONS}"
        return Diagnosis(deviation_ms, none=few)
    weights = -coefficients
    weights[k] = 1.0
    names = sorted({one.operator for size in needed for one in size.profiled.operators})
    off_ms = sum(
        weight * _times(size.profiled, names, rounds) for size, weight in zip(sizes, weights, strict=True) if weight
    )
    plain_ms = sum(
        weight * _picked(size.profiled, size.profiled.forward_ms, rounds)
        for size, weight in zip(sizes, weights, strict=True)
        if weight
    )
    return Diagnosis(
        deviation_ms,
        _causes(sizes, k, names, off_ms, rounds, deviation_ms),
        float(off_ms.sum(axis=1).mean() / deviation_ms),
        float(plain_ms.mean() / deviation_ms),
    )


def _causes(
    sizes: list[Size], k: int, names: list[str], off_ms: np.ndarray, rounds: list[int], deviation_ms: float
) -> list[Cause]:
    intervals = of_means(off_ms)
    here_ms = _times(sizes[k].profiled, names, rounds).mean(axis=0) / sizes[k].batch_size
    found = []
    for i, name in enumerate(names):
        share, ends = float(intervals.mean[i] / deviation_ms), sorted(intervals.together[i] / deviation_ms)
        if abs(share) < LEAST_SHARE or ends[0] <= 0 <= ends[1]:
            continue
        around = [_look(sizes[j], name) if 0 <= j < len(sizes) else None for j in (k, k - 1, k + 1)]
        off = float(intervals.mean[i])
        per_sample = float(here_ms[i])
        predicted = per_sample - off / sizes[k].batch_size
        found.append(Cause(name, off, per_sample, predicted, share, (float(ends[0]), float(ends[1])), *around))
    return sorted(found, key=lambda cause: -abs(cause.share))


def _picked(profiled: Profiled, values: list[float], rounds: list[int]) -> np.ndarray:
    by_round = dict(zip(profiled.repetitions, values, strict=True))
    return np.array([by_round[number] for number in rounds])


def _times(profiled: Profiled, names: list[str], rounds: list[int]) -> np.ndarray:
    """(rounds, operators) own times in ms; 0 where a size does not call an operator."""
    known = {one.operator: _picked(profiled, one.ms, rounds) for one in profiled.operators}
    return np.stack([known.get(name, np.zeros(len(rounds))) for name in names], axis=1)


def _look(size: Size, name: str) -> Look | None:
    if size.profiled is None:
        return None
    absent = OperatorTime(operator=name, calls=0, ms=[])
    one = next((one for one in size.profiled.operators if one.operator == name), absent)
    shapes, kernels = (rows[:SHOWN] if rows is not None else None for rows in (one.shapes, one.kernels))
    return Look(size.batch_size, one.calls, size.threads_used, shapes, kernels)


def _kernels(look: Look) -> str:
    return ", ".join(f"`{one.kernel}`" for one in look.kernels or []) or "none"


def _contrast(what: str, looks: list[Look], said: Callable[[Look], str]) -> str:
    return f"{what}: " + ", ".join(f"{said(look)} at batch size {look.batch_size}" for look in looks)
