"""Statistics against published values, and against a second derivation in exact arithmetic."""

from __future__ import annotations

import statistics
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from distilbench.stats import Z95, licence_threshold, summary_of, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_intervals(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_is_where_the_score_test_just_rejects():
    """The definition: a bound is the share whose standard error puts the observed share z away."""
    for n in (1, 2, 7, 50, 872):
        for successes in range(0, n + 1, max(1, n // 7)):
            for bound in wilson_interval(successes, n):
                if 1e-9 < bound < 1 - 1e-9:  # at the ends the share itself is the bound
                    assert abs(successes / n - bound) == pytest.approx(Z95 * (bound * (1 - bound) / n) ** 0.5)


def test_wilson_stays_within_0_and_1_and_holds_the_share():
    for n in range(1, 40):
        for successes in range(n + 1):
            low, high = wilson_interval(successes, n)
            assert 0 <= low < high <= 1
            assert low <= successes / n + 1e-15
            assert high >= successes / n - 1e-15


def test_z95_is_the_normal_quantile():
    assert statistics.NormalDist().inv_cdf(0.975) == pytest.approx(Z95, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5), (1, -3)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        wilson_interval(successes, n)


@pytest.mark.parametrize(("percentile", "n"), [(90, 64), (95, 130), (99, 662)])
def test_tails_are_licensed_from_the_published_counts_on(percentile, n):
    assert licence_threshold(percentile) == n


@pytest.mark.parametrize("percentile", [50, 75, 90, 95, 99])
@pytest.mark.parametrize("confidence", ["0.9", "0.99"])
def test_thresholds_follow_from_the_binomial_distribution(percentile, confidence):
    """In exact fractions: n is the first for which at most one of n beyond the percentile is improbable enough."""
    tail, allowed = Fraction(100 - percentile, 100), 1 - Fraction(confidence)

    def at_most_one(n: int) -> Fraction:
        return sum(comb(n, k) * tail**k * (1 - tail) ** (n - k) for k in (0, 1))

    n = licence_threshold(percentile, float(confidence))
    assert at_most_one(n) <= allowed < at_most_one(n - 1)


def test_a_deeper_tail_or_more_confidence_needs_more():
    thresholds = [licence_threshold(p) for p in (50, 60, 75, 90, 95, 99, 99.9)]
    assert thresholds == sorted(set(thresholds))
    assert licence_threshold(95, 0.9) < licence_threshold(95, 0.99) < licence_threshold(95, 0.999)


@pytest.mark.parametrize("percentile", [49.9, 0, 100, 101, -1])
def test_a_percentile_outside_its_range_is_refused(percentile):
    with pytest.raises(ValueError, match="percentile must be in"):
        licence_threshold(percentile)


def test_a_summary_by_hand():
    got = summary_of([4, 1, 3, 10, 2])
    assert (got["n"], got["median"], got["mean"], got["min"], got["max"]) == (5, 3, 4, 1, 10)
    assert got["mad"] == 1, "of the distances 1, 2, 0, 7, 1"
    assert got["std"] == pytest.approx(12.5**0.5), "with n - 1"
    assert got["p50"] == 3
    assert got["p90"] == pytest.approx(4 + 0.6 * 6), "between the fourth and the fifth"
    assert got["p99"] == pytest.approx(4 + 0.96 * 6)


def test_one_value_has_no_spread():
    got = summary_of([7])
    assert (got["n"], got["median"], got["std"], got["mad"], got["p99"]) == (1, 7, 0, 0, 7)


@pytest.mark.parametrize(
    ("n", "licensed"),
    [
        (1, [50]),
        (63, [50]),
        (64, [50, 90]),
        (129, [50, 90]),
        (130, [50, 90, 95]),
        (661, [50, 90, 95]),
        (662, [50, 90, 95, 99]),
    ],
)
def test_percentiles_are_licensed_by_the_number_of_values(n, licensed):
    got = summary_of(range(n))
    assert [p for p in (50, 90, 95, 99) if got[f"p{p}_licensed"]] == licensed


def test_a_summary_does_not_depend_on_the_order_and_follows_the_unit():
    values = np.random.default_rng(3).lognormal(size=101)
    one, reverse, thousandfold = (summary_of(list(v)) for v in (values, values[::-1], 1000 * values))
    for name, value in one.items():
        assert reverse[name] == pytest.approx(value)
        scaled = value if name == "n" or name.endswith("_licensed") else 1000 * value
        assert thousandfold[name] == pytest.approx(scaled)
