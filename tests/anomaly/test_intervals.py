"""Intervals of many means: exact by themselves, and together wrong in one run of twenty, whatever the noise."""

from __future__ import annotations

import numpy as np
import pytest
from batch_profiles import SIZES, truth

from distilbench import stats
from distilbench.anomaly import intervals, scaling
from distilbench.simulated_traces import processes

RUNS = 200
NUMBERS = np.array(SIZES, dtype=float)


def test_alone_they_are_students():
    values = np.random.default_rng(3).normal(size=(7, 4))
    found = intervals.of_means(values)
    assert found.mean == pytest.approx(values.mean(axis=0))
    assert [tuple(ends) for ends in found.alone] == [pytest.approx(stats.t_interval(column)) for column in values.T]


def test_together_they_are_wider_and_none_is_narrower_than_most():
    values = np.random.default_rng(3).normal(size=(8, 12))
    values[:, 5] = 1.0 + 1e-6 * values[:, 5]  # its processes happen to agree
    widths = np.diff(intervals.of_means(values).together, axis=1)[:, 0]
    assert (widths >= np.diff(intervals.of_means(values).alone, axis=1)[:, 0]).all()
    assert widths[5] == pytest.approx(np.sort(widths)[: len(widths) // 2].mean(), rel=1e-6), "that of the median one"


def test_equal_columns_are_as_sure_as_one():
    """What goes together is not paid for twice: Bonferroni would."""
    one = np.random.default_rng(5).normal(size=(10, 1))
    found = intervals.of_means(np.tile(one, 20))
    bonferroni = 2 * 4.3 * one.std(ddof=1) / np.sqrt(10)
    assert found.together[0] == pytest.approx(found.alone[0], rel=0.05)
    assert np.diff(found.together[0])[0] < bonferroni / 1.5


def test_values_without_any_noise_have_intervals_without_width():
    found = intervals.of_means(np.full((5, 3), 2.0))
    assert found.alone.tolist() == found.together.tolist() == [[2.0, 2.0]] * 3


def test_many_rounds_draw_their_signs_the_same_each_time():
    values = np.random.default_rng(1).normal(size=(20, 6))
    first = intervals.of_means(values).together
    intervals._signs.cache_clear()
    assert (intervals.of_means(values).together == first).all()


@pytest.mark.parametrize(("kind", "rounds"), [("smooth", 5), ("two-mode", 5), ("spiky", 8)])
def test_a_run_without_any_deviation_names_one_in_one_run_of_twenty_at_most(kind, rounds):
    """Over runs of 19 sizes that scale linearly; one by one, sizes seem to deviate in most of these runs.

    The bound is what 200 runs exceed once in a hundred times where the true share is 5 %.
    """
    rng = np.random.default_rng(20261127)
    noise = processes(kind, rng, RUNS * len(SIZES), rounds, n=20).reshape(RUNS, len(SIZES), rounds)
    together = alone = 0
    for of_run in noise:
        latency_ms = of_run.T / 100 * truth(NUMBERS)
        found = intervals.of_means(scaling.deviations(NUMBERS, latency_ms)[0])
        together += (np.sign(found.together).sum(axis=1) != 0).any()
        alone += (np.sign(found.alone).sum(axis=1) != 0).any()
    assert together <= 18
    assert alone > RUNS * 0.4
