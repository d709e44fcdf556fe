"""Capacity: figures that one can follow by hand."""

from __future__ import annotations

import pytest

from distilbench import paths
from distilbench.errors import ParameterError, RunError
from distilbench.measurements.sweep.show import capacity
from distilbench.measurements.sweep.show.capacity import Demand


@pytest.fixture
def run(make_run):
    """Two cells with requests of 20 ms for one sentence (19 to 21) and 40 ms for four (38 to 44), and joules."""
    run = make_run()
    summary = paths.read_json(run.folder / "summary.json")
    for cell, ms, ends, joules in zip(
        summary["cells"], (20.0, 40.0), ([19.0, 21.0], [38.0, 44.0]), (0.36, None), strict=True
    ):
        cell |= {"latency_request_ms": ms, "latency_request_ms_interval_of_median": ends}
        cell |= {"latency_request_ms_range": [1.0, 999.0], "latency_request_ms_interval_95": [1.0, 999.0]}
        cell |= {"latency_request_ms_repetitions": 5}
        cell |= {"energy_per_sample_J": joules, "energy_per_sample_J_range": [0.18, 0.72]}
    paths.write_json(run.folder / "summary.json", summary)
    return run


def plans(run, *demand, **more):
    return {plan.batch_size: plan for plan in capacity.plans(run, Demand(*demand, **more))}


def test_devices_hours_and_energy(run):
    found = plans(run, 100, 1000, 0.5)
    one, four = found[1], found[4]
    # One sentence in 20 ms is 50 a second, half of the time 25: four devices. Four in 40 ms: 50 a second, two devices.
    assert (one.devices, four.devices) == (4, 2)
    assert one.devices_range == (4, 5), "at 21 ms a device bears 23.8 a second"
    assert four.devices_range == (2, 3)
    assert four.node_hours == pytest.approx(1e6 / 50 / 3600)
    assert four.node_hours_range == (
        pytest.approx(1e6 / (4 / 38e-3 * 0.5) / 3600),
        pytest.approx(1e6 / (4 / 44e-3 * 0.5) / 3600),
    )
    assert one.kWh == pytest.approx(0.1)
    assert one.kWh_range == (pytest.approx(0.05), pytest.approx(0.2))
    assert four.kWh is None


def test_the_time_until_a_batch_is_full_counts(run):
    four = plans(run, 100, 110, 0.5)[4]
    assert four.fill_ms == pytest.approx(60), "three more sentences, at 50 a second on each of two devices"
    assert four.worst_ms == pytest.approx(104)
    assert four.meets
    assert not plans(run, 100, 103, 0.5)[4].meets


def test_the_best_plan_comes_first(run):
    first, second = capacity.plans(run, Demand(100, 1000, 0.5))
    assert (first.batch_size, second.batch_size) == (4, 1)
    first, second = capacity.plans(run, Demand(100, 50, 0.5))
    assert (first.batch_size, first.meets, second.meets) == (1, True, False)


def test_several_devices_in_a_node(run):
    assert plans(run, 100, 1000, 0.5, devices_per_node=4)[1].node_hours == pytest.approx(1e6 / 25 / 3600 / 4)


def test_in_words(run):
    found = capacity.plans(run, Demand(100, 1000, 0.5))
    said = capacity.headline(run, found)
    assert said.startswith("2 (2–3) devices")
    assert "batch size 4" in said
    assert "energy was not measured" in said
    assert "Arrival is taken as even" in said
    assert "No cell answers in time" in capacity.headline(run, capacity.plans(run, Demand(100, 5, 0.5)))
    shown = capacity.table(found)
    assert list(shown["verdict"]) == ["meets it", "meets it"]
    assert shown["kWh / million"].tolist() == ["–", "0.1 (0.05–0.2)"]


def test_without_requests_it_says_that_tokenising_is_missing(make_run):
    run = make_run()
    plan = capacity.plans(run, Demand(10, 1000))[0]
    assert "without tokenising" in plan.note
    assert "range of 2 repetitions, no interval" in plan.note


@pytest.mark.parametrize("demand", [(0, 10), (10, 0), (10, 10, 0), (10, 10, 1.5)])
def test_impossible_demands(run, demand):
    with pytest.raises(ParameterError, match="must be above 0"):
        capacity.plans(run, Demand(*demand))


def test_a_run_without_numbers(run):
    summary = paths.read_json(run.folder / "summary.json")
    for cell in summary["cells"]:
        cell["latency_ms"] = None
    paths.write_json(run.folder / "summary.json", summary)
    with pytest.raises(RunError, match="has no measured cell"):
        capacity.plans(run, Demand(1, 1))


def test_what_is_unstable_says_so(make_run):
    run = make_run("one", profile="smoke", repetitions=2, batch_sizes=[1, 4], samples_per_cycle=32)
    summary = paths.read_json(run.folder / "summary.json")
    summary["cells"][1]["state"] = "unstable"
    paths.write_json(run.folder / "summary.json", summary)
    shown = capacity.table(capacity.plans(run, Demand(10, 1000)))
    assert sum(shown["cell"].str.endswith(" (unstable)")) == 1
