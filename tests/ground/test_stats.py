"""Statistics against published values, and against a second derivation in exact arithmetic."""

from __future__ import annotations

import statistics
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from distilbench import simulated_traces, stats
from distilbench.simulated_traces import processes
from distilbench.stats import (
    Z95,
    autocorrelation,
    converged,
    half_width,
    node_effects,
    outliers,
    paired_ratio_interval,
    ratio_interval,
    samples_needed,
    summary_of,
    t_interval,
    variance_split,
    wilson_interval,
)


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


@pytest.mark.parametrize(("percentile", "n"), [(90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_tails_are_licensed_from_the_published_counts_on(percentile, n):
    assert samples_needed(percentile) == n


@pytest.mark.parametrize("percentile", [50, 75, 90, 95, 99])
@pytest.mark.parametrize("confidence", ["0.9", "0.99"])
def test_thresholds_follow_from_the_binomial_distribution(percentile, confidence):
    """In exact fractions: n is the first for which at most one of n beyond the percentile is improbable enough."""
    tail, allowed = Fraction(100 - percentile, 100), 1 - Fraction(confidence)

    def at_most_one(n: int) -> Fraction:
        return sum(comb(n, k) * tail**k * (1 - tail) ** (n - k) for k in (0, 1))

    n = samples_needed(percentile, float(confidence))
    assert at_most_one(n) <= allowed < at_most_one(n - 1)


def test_a_deeper_tail_or_more_confidence_needs_more():
    thresholds = [samples_needed(p) for p in (50, 60, 75, 90, 95, 99, 99.9)]
    assert thresholds == sorted(set(thresholds))
    assert samples_needed(95, 0.9) < samples_needed(95, 0.99) < samples_needed(95, 0.999)


@pytest.mark.parametrize("percentile", [49.9, 0, 100, 101, -1])
def test_a_percentile_outside_its_range_is_refused(percentile):
    with pytest.raises(ValueError, match="percentile must be in"):
        samples_needed(percentile)


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
        (6635, [50, 90, 95, 99]),
        (6636, [50, 90, 95, 99, 99.9]),
    ],
)
def test_percentiles_are_licensed_by_the_number_of_values(n, licensed):
    got = summary_of(range(n))
    assert [p for p in (50, 90, 95, 99, 99.9) if got[f"p{p}_licensed"]] == licensed


def test_a_summary_does_not_depend_on_the_order_and_follows_the_unit():
    values = np.random.default_rng(3).lognormal(size=101)
    one, reverse, thousandfold = (summary_of(list(v)) for v in (values, values[::-1], 1000 * values))
    for name, value in one.items():
        assert reverse[name] == pytest.approx(value)
        scaled = value if name == "n" or name.endswith("_licensed") else 1000 * value
        assert thousandfold[name] == pytest.approx(scaled)


# ------------------------------------------------------------------ intervals


def test_the_t_interval_by_hand():
    """Five values of mean 3 and variance 2.5; the 97.5 % point of t with 4 degrees of freedom is 2.776445."""
    low, high = t_interval([1, 2, 3, 4, 5])
    assert (low + high) / 2 == pytest.approx(3)
    assert (high - low) / 2 == pytest.approx(2.776445105 * (2.5 / 5) ** 0.5)
    wider = t_interval([1, 2, 3, 4, 5], confidence=0.99)
    assert wider[0] < low < high < wider[1]


def test_below_five_repetitions_there_is_no_interval():
    assert t_interval([1, 2, 3, 4]) is None
    assert ratio_interval([1, 2, 3, 4, 5], [1, 2, 3, 4]) is None
    assert ratio_interval([1, 2, 3, 4], [1, 2, 3, 4, 5]) is None


def test_the_interval_of_a_ratio_by_hand():
    """Logarithms of equal variance and number: Welch's degrees of freedom are those of the pooled test, 8."""
    base, other = np.exp([0.0, 0.1, 0.2, 0.3, 0.4]), np.exp([1.0, 1.1, 1.2, 1.3, 1.4])
    low, high = ratio_interval(base, other)
    assert (low * high) ** 0.5 == pytest.approx(np.e)
    assert np.log(high / low) / 2 == pytest.approx(2.306004135 * (2 * 0.025 / 5) ** 0.5)
    assert ratio_interval(other, base) == pytest.approx((1 / high, 1 / low)), "symmetric"
    assert ratio_interval([2.0] * 5, [3.0] * 6) == pytest.approx((1.5, 1.5)), "nothing varies"


def test_a_percentile_bootstrap_would_not_cover():
    """Why it is not used: over five repetitions it claims 95 % and covers far less."""
    generator = np.random.default_rng(3)
    trials = processes("smooth", generator, 600, 5)
    covered = 0
    for values in trials:
        means = generator.choice(values, (400, 5)).mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        covered += low <= 100 <= high
    assert covered / 600 < 0.91


def test_two_equal_machines_are_rarely_told_apart():
    generator = np.random.default_rng(5)
    pairs = zip(processes("smooth", generator, 3000, 10), processes("spiky", generator, 3000, 10), strict=True)
    spikes = processes("spiky", generator, 4000, 10).mean() / processes("smooth", generator, 4000, 10).mean()
    intervals = [ratio_interval(base, other) for base, other in pairs]
    false = np.mean([not low <= spikes <= high for low, high in intervals])
    assert 0.03 <= false <= 0.07


# ------------------------------------------------------------------ iterations


def test_autocorrelation():
    generator = np.random.default_rng(1)
    noise = generator.standard_normal(20_000)
    assert abs(autocorrelation(noise)) < 0.03
    follows = np.zeros(20_000)
    for i in range(1, 20_000):
        follows[i] = 0.8 * follows[i - 1] + noise[i]
    assert autocorrelation(follows) == pytest.approx(0.8, abs=0.02)
    assert autocorrelation([1, -1] * 50) == pytest.approx(-1, abs=0.02)
    assert autocorrelation([5, 5, 5]) is None
    assert autocorrelation([1, 2]) is None


def test_outliers_are_counted():
    assert outliers([10, 11, 12, 13, 14]) == 0
    assert outliers([10, 11, 12, 13, 14, 100, -100]) == 2
    assert outliers([5.0]) == 0


def test_variance_is_split_between_and_within_processes():
    generator = np.random.default_rng(2)
    own = 3 * generator.standard_normal((400, 1))
    split = variance_split((100 + own + 2 * generator.standard_normal((400, 50))).tolist())
    assert split["within"] == pytest.approx(4, rel=0.05)
    assert split["between"] == pytest.approx(9, rel=0.2)
    assert split["share_between"] == pytest.approx(9 / (9 + 4 / 50), rel=0.01)


def test_processes_that_agree_have_no_variance_between_them():
    generator = np.random.default_rng(4)
    assert variance_split(generator.standard_normal((300, 50)).tolist())["share_between"] < 0.2
    assert variance_split([[1, 1], [1, 1]]) is None
    assert variance_split([[1, 2, 3]]) is None
    assert variance_split([[1], [2]]) is None


# ------------------------------------------------------------------ when to begin, when to stop


def test_one_cycle_cannot_have_settled():
    assert not converged([[1.0, 2.0, 3.0]])
    assert converged([[1.0, 2.0, 3.0]] * 2)


@pytest.mark.parametrize(
    ("last", "done"),
    [
        ([101.9, 101.9, 101.9], True),  # the median may differ by 2 %
        ([102.1, 102.1, 102.1], False),
        ([94.9, 100.0, 105.1], True),  # quartiles lie half way: 97.45 and 102.55
        ([88.0, 100.0, 112.0], False),  # the median agrees, the quartiles differ by 6 %
        ([89.0, 100.0, 100.0], False),
        ([100.0, 100.0, 112.0], False),
    ],
)
def test_halves_must_agree_in_median_and_quartiles(last, done):
    assert converged([[100.0] * 3, last]) is done


def test_the_window_grows_and_forgets_its_beginning():
    cold, warm = [200.0] * 4, [100.0] * 4
    assert not converged([cold, warm])
    assert converged([cold, warm, warm]), "one cycle against the one before"
    drifting = [[100.0 * 0.985**i] * 4 for i in range(8)]
    assert converged(drifting[:3]), "1.5 % from cycle to cycle seems settled at first"
    assert not converged(drifting), "but not over two cycles against two"


def test_the_half_width_is_a_share_of_the_middle():
    """Medians 99, 100, 101, 100, 100: standard deviation sqrt(2 / 4), t(0.975, 4) = 2.776."""
    expected = 2.7764451 * (0.5**0.5) / 5**0.5 / 100
    assert half_width([99.0, 100.0, 101.0, 100.0, 100.0]) == pytest.approx(expected)
    assert half_width([7.0] * 5) == 0
    assert half_width([1.0, 2.0, 3.0, 4.0]) is None


def test_a_drift_that_both_share_drops_out_of_pairs():
    """Logs of the ratios are ln 2 each: no width, though base and other go from 1 to 5."""
    base = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert paired_ratio_interval(base, [2 * value for value in base]) == pytest.approx((2, 2))
    low, high = ratio_interval(base, [2 * value for value in base])
    assert low < 1.2
    assert high > 3.3
    assert paired_ratio_interval(base[:4], base[:4]) is None


# ------------------------------------------------------------------ nodes


def rounds_on_nodes(seed: int, slow: float = 1.0, rounds: int = 10) -> list[tuple[str, str, int, float]]:
    """Three cells in each round; rounds alternate between two nodes, and each has an hour of its own."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(rounds):
        node, hour = f"n{number % 2}", random.normal(0, 0.01)
        for cell, ms in (("a", 10.0), ("b", 20.0), ("c", 400.0)):
            factor = slow if node == "n1" else 1.0
            rows.append((node, cell, number, ms * factor * np.exp(hour + random.normal(0, 0.005))))
    return rows


def test_equal_nodes_are_told_apart_as_rarely_as_claimed():
    values = [node_effects(rounds_on_nodes(seed))["p_value"] for seed in range(400)]
    assert 0.03 < np.mean(np.array(values) < 0.05) < 0.08


def test_a_slow_node_is_found():
    found = node_effects(rounds_on_nodes(1, slow=1.1))
    assert found["ratios"]["n1"] / found["ratios"]["n0"] == pytest.approx(1.1, rel=0.02)
    assert found["p_value"] < 0.001
    assert found["rounds"] == 10


def test_a_node_that_got_the_long_cells_is_not_called_slow():
    rows = [row for row in rounds_on_nodes(2) if not (row[0] == "n0" and row[1] == "c" and row[2] > 2)]
    found = node_effects(rows)
    assert found["ratios"]["n1"] == pytest.approx(1, abs=0.02)


def test_one_cell_on_one_node_says_nothing_of_nodes():
    assert node_effects([("n0", "a", 0, 1.0), ("n0", "a", 1, 1.1), ("n1", "b", 0, 2.0)]) is None


def test_one_round_on_each_node_is_no_test():
    found = node_effects([("n0", "a", 0, 1.0), ("n1", "a", 1, 1.1)])
    assert found["p_value"] is None
    assert found["ratios"]["n1"] == pytest.approx(1.1**0.5)


# ------------------------------------------------------------------ the interval of the median


@pytest.mark.parametrize(
    ("n", "rank", "level"),
    [(5, 1, 0.9375), (8, 1, 0.9921875), (9, 2, 0.9609375), (10, 2, 0.978515625), (12, 3, 0.961426)],
)
def test_which_values_end_the_interval_of_the_median(n, rank, level):
    """Levels by the binomial distribution, as tabulated (David & Nagaraja)."""
    values = [float(i) for i in range(1, n + 1)]
    assert stats.median_interval(values[::-1]) == (rank, n + 1 - rank)
    assert stats.median_level(n) == pytest.approx(level, abs=1e-6)


def test_four_values_have_no_interval_of_the_median():
    assert stats.median_interval([1.0, 2.0, 3.0, 4.0]) is None


def test_every_interval_of_the_median_holds_what_is_claimed_and_none_could_be_narrower():
    for n in range(stats.MIN_REPETITIONS, 60):
        rank = stats.median_rank(n)
        assert stats.median_level(n) >= stats.LEAST_LEVEL
        assert 2 * rank <= n
        assert stats.median_level(n, rank + 1) < stats.LEAST_LEVEL


@pytest.mark.parametrize("kind", simulated_traces.KINDS)
@pytest.mark.parametrize("n", [5, 10])
def test_it_holds_the_median_whatever_the_processes_are_like(kind, n):
    """In two modes as well, where Student's t of the mean covers 0.76 at five repetitions."""
    generator = np.random.default_rng(20261126)
    truth = np.median(processes(kind, generator, 20_000, 1))
    ends = np.array([stats.median_interval(values) for values in processes(kind, generator, 3000, n)])
    held = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert held == pytest.approx(stats.median_level(n), abs=0.015)
