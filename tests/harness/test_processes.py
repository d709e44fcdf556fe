"""What becomes of a step whose process ends in one way or another; with the real worker: test_worker, test_sweep."""

from __future__ import annotations

import signal

import pytest
from measuring import prepared_by_hand, small_design, stand_in_here

from distilbench import studies
from distilbench.harness import processes
from distilbench.machine import cgroups
from distilbench.measurements.sweep.kind import MEASUREMENT
from distilbench.measurements.sweep.measure import run as sweep


@pytest.fixture
def take(monkeypatch, this_machine, tmp_path):
    """Measures a repetition of the one cell, in a process that `spawn` stands in for."""
    resolved = small_design(tmp_path, passes=["timing"], repetitions=2)
    run = studies.start(resolved)
    (cell,) = MEASUREMENT.cells(resolved.params)
    step = sweep.take(run, resolved, prepared_by_hand(run))

    def taken(number: int, spawn):
        monkeypatch.setattr(processes, "_spawn", spawn)
        return step(cell, "timing", number, 1)

    return taken


def test_what_an_earlier_step_left_is_not_taken_for_the_next(take):
    assert take(0, stand_in_here).status == "ok"
    silent = take(1, lambda *_: (0, ""))
    assert (silent.repetition, silent.status) == (1, "failed")
    assert silent.error == "the worker ended with code 0 and said nothing"


@pytest.mark.parametrize(
    ("kills", "status", "error"),
    [
        ([3, 3], "failed", "killed by SIGKILL"),
        ([3, 4], "oom", "killed by the kernel for memory (the control group counts it)"),
        ([None, None], "failed", "killed by SIGKILL"),
    ],
)
def test_a_kill_is_one_for_memory_only_where_the_control_group_counts_it(take, monkeypatch, kills, status, error):
    counted = iter(kills)
    monkeypatch.setattr(cgroups, "oom_kills", lambda *_: next(counted))
    record = take(0, lambda *_: (-signal.SIGKILL, ""))
    assert (record.status, record.error) == (status, error)


def test_a_record_of_a_process_that_failed_afterwards_does_not_count(take):
    def fails_at_its_end(*given):
        stand_in_here(*given)
        return 1, "Traceback\nOSError: no room"

    record = take(0, fails_at_its_end)
    assert (record.status, record.error) == ("failed", "OSError: no room")
