"""How many threads really compute: counted on made-up readings, and on this machine's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distilbench.collectors import threads
from distilbench.collectors.threads import Use


@pytest.mark.parametrize(
    ("before", "after", "number"),
    [
        ({"1": 5.0, "2": 1.0}, {"1": 5.2, "2": 1.19}, 2),
        ({"1": 5.0}, {"1": 5.2, "2": 0.19}, 2),  # it began in between
        ({"1": 5.0, "2": 1.0}, {"1": 5.2, "2": 1.0}, 1),  # told to wait, as by OMP_THREAD_LIMIT
        ({"1": 5.0, "2": 1.0}, {"1": 5.2, "2": 1.01}, 1),  # it only woke up
        ({"1": 5.0, "2": 1.0}, {"1": 5.1, "2": 1.02}, 2),  # its core was busy with something else
        ({"1": 5.0, "2": 1.0, "9": 3.0}, {"1": 5.2, "2": 1.2}, 2),  # one ended
        ({"1": 5.0}, {"1": 5.0}, 0),
    ],
)
def test_threads_that_got_time_are_counted(before, after, number):
    assert threads.worked(before, after) == number


def test_time_by_thread_is_read_and_what_cannot_be_read_left_out(tmp_path):
    for thread, said in (("11", "1500000000 20 3\n"), ("12", "x\n"), ("13", "")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(said)
    (tmp_path / "14").mkdir()
    assert threads.times_s(tmp_path) == {"11": 1.5}
    assert threads.times_s(tmp_path / "absent") == {}


@pytest.fixture
def looks(monkeypatch) -> list[Use | None]:
    """What the next looks see."""
    coming: list[Use | None] = []
    monkeypatch.setattr(threads, "_look", lambda work, least_s: coming.pop(0))
    return coming


def test_fewer_are_looked_at_again_before_they_are_believed(looks):
    looks += [Use(1, 1.0), Use(2, 1.9), Use(2, 2.0)]
    assert threads.used(lambda: None, 2) == Use(2, 1.9)
    assert len(looks) == 1, "what was asked for needs no second look"
    looks[:] = [Use(1, 1.0), Use(1, 0.5), Use(1, 0.9)]
    assert threads.used(lambda: None, 2) == Use(1, 0.9)


def test_where_nothing_counts_nothing_is_said(monkeypatch):
    monkeypatch.setattr(threads, "times_s", lambda: {})
    assert threads.used(lambda: None, 2, least_s=0.01) is None


def test_this_threads_own_work_is_seen():
    def burn() -> None:
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass

    found = threads.used(burn, 1, least_s=0.1)
    assert found.threads == 1
    assert 0 < found.cores < 1.5


COUNT = """
import json, sys, torch
from distilbench.collectors import threads
torch.set_num_threads(2)
found = threads.used(threads.product(torch), 2)
print(json.dumps([torch.get_num_threads(), found.threads]))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize(("given", "number"), [({}, 2), ({"OMP_THREAD_LIMIT": "1"}, 1)])
def test_torch_says_two_and_the_kernel_says_how_many(given, number):
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "KMP_"))}
    command = [sys.executable, "-c", COUNT]
    done = subprocess.run(
        command, env=usual | given, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert json.loads(done.stdout) == [2, number]
