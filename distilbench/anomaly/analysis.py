"""Which batch sizes deviate from linear scaling, which only seem to, and what of it their operators account for.

A pure function of the file (`records.BatchProfile`): the same file gives the same analysis, to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distilbench.anomaly import diagnosis, scaling
from distilbench.anomaly.diagnosis import Diagnosis
from distilbench.anomaly.intervals import Intervals, of_means
from distilbench.anomaly.records import BatchProfile, Size
from distilbench.stats import MIN_REPETITIONS, THRESHOLD, verdict_of

Ends = tuple[float, float]
Found = Literal[
    "faster than linear", "slower than linear", "only seems faster", "only seems slower", "linear", "undecided"
]
DEVIATES: tuple[Found, ...] = ("faster than linear", "slower than linear")
SEEMS: tuple[Found, ...] = ("only seems faster", "only seems slower")
FORKED = "its processes were forked from one and share its layout of memory: their spread says too little"
NOT_FULL = "it is a run of profile {}, which shows that things work, and is not for citation"


@dataclass(frozen=True)
class Ratio:
    """A ratio with its intervals, where there are any.

    Attributes:
        value: of geometric means over rounds.
        alone: 95 % interval by itself.
        together: 95 % interval that holds for all sizes at once.
    """

    value: float
    alone: Ends | None = None
    together: Ends | None = None


@dataclass(frozen=True)
class SizeFound:
    """One batch size.

    Attributes:
        latency_ms: of a batch, median over processes; predicted_ms: by the line through the other sizes.
        measured_over_predicted: below 1, a batch is faster than linear scaling says.
        speed_up_per_sample: how many times less a sample takes than at the base size.
        extrapolated: the smallest or largest size, which the line reaches only beyond what it was drawn through.
        found: the verdict; None where the run can give none.
    """

    batch_size: int
    state: str
    latency_ms: float
    predicted_ms: float
    measured_over_predicted: Ratio
    speed_up_per_sample: Ratio
    extrapolated: bool
    threads_used: float | None
    found: Found | None
    diagnosis: Diagnosis | None = None

    @property
    def latency_per_sample_ms(self) -> float:
        """Of a sentence in its batch."""
        return self.latency_ms / self.batch_size

    @property
    def efficiency(self) -> Ratio:
        """Against linear scaling: predicted over measured; 1.15 is 15 % better than predicted."""
        ratio = self.measured_over_predicted
        ends = [(1 / pair[1], 1 / pair[0]) if pair else None for pair in (ratio.alone, ratio.together)]
        return Ratio(1 / ratio.value, *ends)


@dataclass(frozen=True)
class Curve:
    """The sizes of one variant, dtype and length policy, with the line through all of them."""

    name: str
    fixed_ms: float | None
    per_sample_ms: float | None
    base_size: int
    sizes: list[SizeFound]
    left_out: dict[int, str]


@dataclass(frozen=True)
class Analysis:
    """What the file says.

    Attributes:
        rounds: in which every size was measured; the intervals are over these.
        compared: how many sizes were controlled for together.
        no_verdict: why there are no intervals and no verdicts; "" where there are.
    """

    curves: list[Curve]
    rounds: int
    compared: int
    no_verdict: str

    def sizes(self, kinds: Sequence[str | None]) -> list[tuple[Curve, SizeFound]]:
        """The sizes with one of these verdicts, with their curves."""
        return [(curve, size) for curve in self.curves for size in curve.sizes if size.found in kinds]


@dataclass(frozen=True)
class _Family:
    """The measured sizes of one curve: latencies (rounds, k) in the rounds that all have, and their deviations."""

    sizes: list[Size]
    numbers: np.ndarray
    latency_ms: np.ndarray
    deviations: np.ndarray
    coefficients: np.ndarray


def analyse(content: BatchProfile) -> Analysis:
    """The analysis of a file."""
    by_curve: dict[tuple[str, str, str], list[Size]] = {}
    for size in sorted(content.sizes, key=lambda size: size.batch_size):
        by_curve.setdefault(size.curve, []).append(size)
    measured = [size for size in content.sizes if size.processes]
    seen = [{one.repetition for one in size.processes} for size in measured]
    rounds = sorted(set.intersection(*seen)) if seen else []
    families = {curve: family for curve, sizes in by_curve.items() if (family := _family(sizes, rounds))}
    compared = sum(len(family.sizes) for family in families.values())
    no_verdict = _why_none(content, len(rounds), compared)
    values = np.hstack([family.deviations for family in families.values()]) if families else np.empty((0, 0))
    intervals = None if no_verdict else of_means(values)
    curves, at = [], 0
    for curve, sizes in by_curve.items():
        family = families.get(curve)
        columns = slice(at, at := at + (len(family.sizes) if family else 0))
        curves.append(_curve(", ".join(curve), sizes, family, intervals, columns))
    return Analysis(curves, len(rounds), compared, no_verdict)


def _family(sizes: list[Size], rounds: list[int]) -> _Family | None:
    measured = [size for size in sizes if size.processes]
    if len(measured) <= scaling.FEWEST_OTHERS or not rounds:
        return None
    numbers = np.array([size.batch_size for size in measured], dtype=float)
    by_round = [{one.repetition: one.latency_ms for one in size.processes} for size in measured]
    latency_ms = np.array([[found[number] for found in by_round] for number in rounds])
    return _Family(measured, numbers, latency_ms, *scaling.deviations(numbers, latency_ms))


def _why_none(content: BatchProfile, rounds: int, compared: int) -> str:
    """Why no size can be judged; "" where they can."""
    if not compared:
        return f"linear scaling needs {scaling.FEWEST_OTHERS + 1} measured batch sizes or more"
    if content.profile != "full":
        return NOT_FULL.format(content.profile)
    if content.start == "forked":
        return FORKED
    if rounds < MIN_REPETITIONS:
        fewest = min((size for size in content.sizes if size.processes), key=lambda size: len(size.processes))
        return (
            f"{rounds} rounds have every size, and an interval needs {MIN_REPETITIONS} "
            f"(fewest processes: {len(fewest.processes)} at batch size {fewest.batch_size})"
        )
    return ""


def _curve(name: str, sizes: list[Size], family: _Family | None, intervals: Intervals | None, columns: slice) -> Curve:
    left_out = {size.batch_size: f"not measured ({size.state})" for size in sizes if not size.processes}
    if family is None:
        few = f"too few sizes for a line: {scaling.FEWEST_OTHERS + 1} are needed"
        return Curve(name, None, None, 0, [], {size.batch_size: few for size in sizes} | left_out)
    centre = np.exp(np.log(family.latency_ms).mean(axis=0))
    found = [_size(family, k, centre, intervals, columns.start + k) for k in range(len(family.sizes))]
    return Curve(name, *scaling.line(family.numbers, centre), family.sizes[0].batch_size, found, left_out)


def _size(family: _Family, k: int, centre: np.ndarray, intervals: Intervals | None, column: int) -> SizeFound:
    size = family.sizes[k]
    log_ratio = float(family.deviations[:, k].mean())
    alone = together = found = None
    if intervals is not None:
        alone, together = (_exp(ends[column]) for ends in (intervals.alone, intervals.together))
        found = _verdict(alone, together)
    latency_ms = float(np.median(family.latency_ms[:, k]))
    deviation_ms = float(centre[k] - family.coefficients[k] @ centre)
    explained = diagnosis.explain(family.sizes, k, family.coefficients[k], deviation_ms) if found in DEVIATES else None
    return SizeFound(
        batch_size=size.batch_size,
        state=size.state,
        latency_ms=latency_ms,
        predicted_ms=latency_ms / float(np.exp(log_ratio)),
        measured_over_predicted=Ratio(float(np.exp(log_ratio)), alone, together),
        speed_up_per_sample=_speed_up(family, k, intervals is not None),
        extrapolated=k in (0, len(family.sizes) - 1),
        threads_used=size.threads_used,
        found=found,
        diagnosis=explained,
    )


def _speed_up(family: _Family, k: int, with_interval: bool) -> Ratio:
    """Latency per sample at the smallest size over that at this one, round by round."""
    per_sample = np.log(family.latency_ms / family.numbers)
    logs = (per_sample[:, 0] - per_sample[:, k])[:, None]
    return Ratio(float(np.exp(logs.mean())), _exp(of_means(logs).alone[0]) if with_interval else None)


def _exp(ends: np.ndarray) -> Ends:
    low, high = np.exp(ends)
    return float(low), float(high)


def _verdict(alone: Ends, together: Ends) -> Found:
    """By the interval that holds for all sizes at once; by that of this size alone, only a semblance.

    `stats.THRESHOLD` is what makes no difference in practice, as in every comparison of this project.
    """
    sure, seeming = verdict_of(together, THRESHOLD), verdict_of(alone, THRESHOLD)
    if sure in ("FASTER", "SLOWER"):
        return "faster than linear" if sure == "FASTER" else "slower than linear"
    if sure == "SAME":
        return "linear"
    return {"FASTER": "only seems faster", "SLOWER": "only seems slower"}.get(seeming, "undecided")
