"""Of what the processes of a group say, the one with which it began is told."""

from __future__ import annotations

import signal

import pytest

from distilbench import paths
from distilbench.measurements.training.measure import launch

CLOSED = {"status": "failed", "error": "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:4711"}


def failure(folder, codes: dict[int, int], **said: dict) -> dict:
    file = folder / "job.json"
    for rank, one in said.items():
        paths.write_json(launch.of_rank(file, int(rank[1:])).with_suffix(".failure.json"), one)
    return launch.failure_of(file, codes, 3)


def test_the_one_that_raised_is_told_and_not_those_that_waited(tmp_path):
    own = {"status": "invalid", "error": "the gradients of step 3 are not finite"}
    found = failure(tmp_path, {0: 1, 1: 1, 2: 1}, r0=CLOSED, r1=own, r2=CLOSED)
    assert found == {"status": "invalid", "error": "rank 1: the gradients of step 3 are not finite"}


def test_a_killed_one_is_named_where_the_others_only_waited(tmp_path):
    found = failure(tmp_path, {0: 1, 2: -signal.SIGKILL}, r0=CLOSED, r1=CLOSED)
    assert found == {"status": "failed", "error": "rank 2 was killed by SIGKILL"}


def test_a_stop_that_was_asked_for_is_one(tmp_path):
    stopped = {"status": "preempted", "error": "asked to stop after step 20; the state is saved"}
    assert failure(tmp_path, {0: 1, 1: 1}, r0=stopped, r1=stopped) == stopped


@pytest.mark.parametrize("said", [{}, {"r0": CLOSED, "r1": CLOSED}])
def test_something_is_said_in_any_case(tmp_path, said):
    found = failure(tmp_path, {0: 1, 1: 1}, **said)
    assert found["status"] == "failed"
    assert found["error"].startswith("rank 0: ")
