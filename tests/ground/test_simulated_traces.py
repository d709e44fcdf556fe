"""Simulated traces with known truth, and pools that are cut into groups."""

from __future__ import annotations

import numpy as np
import pytest

from distilbench import simulated_traces
from distilbench.simulated_traces import coverage, processes, told_apart


@pytest.mark.parametrize("kind", ["smooth", "drifting", "spiky"])
@pytest.mark.parametrize("repetitions", [5, 10])
def test_intervals_cover_as_often_as_they_claim(kind, repetitions):
    """95 % means 93 to 97 in a hundred, on traces whose truth is known; seeded, so that it never flakes."""
    assert 0.93 <= coverage(kind, repetitions) <= 0.97


def test_two_modes_are_more_than_so_few_repetitions_can_bear():
    """Why the calibration reports this kind and demands nothing of it."""
    assert coverage("two-mode", 5, trials=1000) < 0.93


def test_coverages_are_of_every_kind_and_as_many_trials_as_fit(monkeypatch):
    """Those of five and of ten are what the report prints of runs with so many repetitions."""
    assert {kind: round(share, 3) for kind, share in simulated_traces.coverages(5).items()} == {
        "smooth": 0.947, "drifting": 0.954, "spiky": 0.95, "two-mode": 0.763,
    }  # fmt: skip
    assert simulated_traces.coverages(simulated_traces.USUAL)["two-mode"] > 0.93
    asked = []
    monkeypatch.setattr(simulated_traces, "coverage", lambda *given: asked.append(given))
    simulated_traces.coverages(400)
    assert asked == [(kind, 400, 200) for kind in simulated_traces.KINDS]


def test_a_coverage_is_the_same_each_time():
    assert coverage("spiky", 5, trials=300) == coverage("spiky", 5, trials=300)


@pytest.mark.parametrize("kind", simulated_traces.KINDS)
def test_traces_have_their_shape_and_are_of_about_100_ms(kind):
    simulated = processes(kind, np.random.default_rng(1), 50, 7)
    assert simulated.shape == (50, 7)
    assert 99 < np.median(simulated) < 104


def test_one_process_in_four_is_in_the_second_mode():
    simulated = processes("two-mode", np.random.default_rng(1), 1, 4000)
    assert np.mean(simulated > 105) == pytest.approx(0.25, abs=0.02)


def test_equal_things_are_hardly_ever_told_apart():
    base, twin = processes("smooth", np.random.default_rng(2), 2, 60)
    rates = told_apart(base, twin, 10, 100, seed=3)
    assert sum(rates.values()) == pytest.approx(1)
    assert rates.get("FASTER", 0) + rates.get("SLOWER", 0) < 0.05


def test_what_is_slower_is_found_through_a_drift_that_both_share():
    drift = np.linspace(1.0, 1.3, 60)
    base, other = processes("smooth", np.random.default_rng(2), 2, 60) * drift
    assert told_apart(base, other * 1.05, 10, 100, seed=3)["SLOWER"] > 0.95
    assert told_apart(base, other / 1.05, 10, 100, seed=3)["FASTER"] > 0.95


def test_groups_are_disjoint(monkeypatch):
    """By a comparison that notes what it is given: a cut uses a round once, and not what fits into no group."""
    seen = []
    monkeypatch.setattr(simulated_traces, "paired_ratio_interval", lambda base, other: seen.append((base, other)))
    assert told_apart(range(47), range(100, 147), 10, 3, seed=1) == {"AMBIGUOUS": 1.0}
    assert len(seen) == 3 * 4
    for cut in (seen[:4], seen[4:8], seen[8:]):
        assert len({number for base, _ in cut for number in base}) == 40
    assert all([number + 100 for number in base] == other for base, other in seen), "of the same rounds"
    assert seen[0] != seen[4], "each cut is another one"
