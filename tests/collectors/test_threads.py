"""How many threads really compute: counted on made-up readings, and on this machine's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from distilbench.collectors import threads
from distilbench.collectors.threads import Use


@pytest.mark.parametrize(
    ("before", "after", "mine"),
    [
        ({"1": 5.0, "2": 1.0}, {"1": 5.2, "2": 1.19}, ["1", "2"]),
        ({"1": 5.0}, {"1": 5.2, "2": 0.19}, ["1", "2"]),  # it began in between
        ({"1": 5.0, "2": 1.0}, {"1": 5.2, "2": 1.0}, ["1"]),  # told to wait, as by OMP_THREAD_LIMIT
        ({"1": 5.0, "2": 1.0}, {"1": 5.2, "2": 1.002}, ["1"]),  # it only woke up
        ({"1": 5.0, "2": 1.0}, {"1": 5.1, "2": 1.02}, ["1", "2"]),  # its core was busy with something else
        ({"1": 5.0, "2": 1.0, "9": 3.0}, {"1": 5.2, "2": 1.2}, ["1", "2"]),  # one ended
        ({"1": 5.0}, {"1": 5.0}, []),
    ],
)
def test_threads_that_got_time_are_counted(before, after, mine):
    assert threads.worked(before, after, 2) == mine


def use(number: int, cpus: int = 4, cores: float = 1.0) -> Use:
    return Use(number, cores, frozenset(range(cpus)))


@pytest.mark.parametrize(
    ("even", "product", "why"),
    [
        (use(4), use(4), None),
        (use(4), use(3), None),  # a matrix library leaves one out
        (use(5), use(5), None),  # one that does something else
        (use(3), use(3), "4 threads were asked for and 3 computed, on 1.00 cores"),
        (use(4), use(2), "4 threads were asked for and 2 computed a matrix product"),
        (use(4, cpus=1), use(4), "4 threads were asked for and all of them are bound to 1 of 4 cores"),
        (use(4, cores=0.5), use(4, cores=0.5), None),  # busy cores are no fault of the threads
    ],
)
def test_a_fault_is_told_from_busy_cores(even, product, why):
    assert threads.problem(4, even, product, usable=4) == why


def test_one_thread_is_one_thread():
    assert threads.problem(1, use(1), use(1), usable=4) is None
    assert threads.problem(8, use(8, cpus=2), use(8), usable=2) is None, "more threads than cores were asked for"


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
    monkeypatch.setattr(threads, "_look", lambda work, asked, least_s: coming.pop(0))
    return coming


def test_fewer_are_looked_at_again_before_they_are_believed(looks):
    looks += [use(1), use(2), use(3)]
    assert threads.used(lambda: None, 2) == use(2)
    assert len(looks) == 1, "what was asked for needs no second look"
    looks[:] = [use(1), use(1), use(1, cores=0.9)]
    assert threads.used(lambda: None, 2) == use(1, cores=0.9)


@pytest.mark.parametrize("shown", [{}, {"1": 0.0, "2": 0.0}], ids=["no files", "zeros"])
def test_where_nothing_counts_nothing_is_said(monkeypatch, shown):
    monkeypatch.setattr(threads, "times_s", lambda: shown)
    assert threads.used(lambda: sum(range(1000)), 2, least_s=0.01) is None


def test_a_thread_that_has_ended_is_bound_to_nothing():
    assert threads._may_run_on("999999999") == set()


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
asked = int(sys.argv[1])
torch.set_num_threads(asked)
even, product = (threads.used(work, asked) for work in threads.works(torch, asked))
print(json.dumps([torch.get_num_threads(), even.threads, threads.problem(asked, even, product, 2) is None]))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize(
    ("asked", "given", "number", "fine"),
    [
        (2, {}, 2, True),
        (3, {}, 3, True),
        (2, {"OMP_THREAD_LIMIT": "1"}, 1, False),
        (2, {"GOMP_CPU_AFFINITY": "0"}, 2, False),
    ],
    ids=["two", "three", "limited", "bound"],
)
def test_the_kernel_says_how_many_compute_whatever_torch_says(asked, given, number, fine):
    usual = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_", "KMP_"))
    }
    command = [sys.executable, "-c", COUNT, str(asked)]
    done = subprocess.run(command, env=usual | given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [asked, number, fine]
