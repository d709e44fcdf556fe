"""What processes say of a number: which cells, which processes."""

from __future__ import annotations

import pytest
from claimed import per_sentence, timed_run

from distilbench.report import readings


@pytest.mark.usefixtures("this_machine")
def test_a_control_cell_and_a_number_that_was_not_measured_give_no_readings():
    run = timed_run(per_sentence(1.0), repetitions=2, control=True)
    assert any(record.control_of for record in run.measured())
    found = readings.of_records(run, "latency_ms", {})
    assert [one.name for one in found] == ["sdpa-float32-fixed-32-b002", "sdpa-float32-fixed-32-b004"]
    assert [set(one.by_round) for one in found] == [{0, 1}] * 2
    assert found[1].cell["batch_size"] == 4
    assert "control_of" not in found[1].cell
    assert readings.of_records(run, "peak_rss_MiB", {}) == []


@pytest.mark.usefixtures("this_machine")
def test_processes_that_prove_something_else_are_counted_apart():
    run = timed_run(per_sentence(1.0), lambda _, number: {"kernel": f"k{number % 3}"}, repetitions=5)
    (one, _) = readings.of_records(run, "latency_ms", {"kernel": ["k0", "k1"]})
    assert (set(one.by_round), one.left_out) == ({0, 1, 3, 4}, 1)


@pytest.mark.parametrize(
    ("wanted", "agrees"),
    [
        ({}, True),
        ({"length": "fixed-*", "size": 4}, True),
        ({"size": [2, 4.0]}, True),
        ({"size": "4"}, False),
        ({"length": "longest"}, False),
        ({"other": "*"}, False),
    ],
)
def test_what_agrees(wanted, agrees):
    assert readings.agrees({"length": "fixed-32", "size": 4}, wanted) is agrees
