"""Neighbours: the kernel's counters read by hand, and real processes that burn a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest
from waiting import cpu_time_s, wait_for

from distilbench.collectors import cpu_use
from distilbench.collectors.cpu_use import CpuCounters, cpu_use_between

STAT = """\
cpu  999 999 999 999 999 999 999 999 999 999
cpu0 100 20 30 5000 60 7 8 9 50 0
cpu1 200 0 0 5000 0 0 0 1 0 0
cpu12 1 1 1 1 1 1 1 1 0 0
intr 12345 0 0
ctxt 999
"""


def test_the_counters_by_hand():
    """Used: user, nice, system, interrupts; not idle, waiting or the guests that user time holds already."""
    tick = os.sysconf("SC_CLK_TCK")
    assert cpu_use._cores(STAT, {0}) == ((100 + 20 + 30 + 7 + 8) / tick, 9 / tick)
    assert cpu_use._cores(STAT, {0, 1}) == ((165 + 200) / tick, 10 / tick)
    assert cpu_use._cores(STAT, {1}) == (200 / tick, 1 / tick), "cpu12 is not cpu1"


@pytest.mark.parametrize(
    ("stat", "usable"),
    [
        (STAT, {2}),
        (STAT, {0, 1, 2}),
        (STAT.replace("cpu0 ", "cpu2 "), {0}),
        ("cpu  99 0 0 99 0 0 0 0 0 0\nintr 1\n", {0}),
        ("cpu0 99 0 0 99 0 0 0\n", {0}),
        ("cpu0 0 0 0 0 0 0 0 0 0 0\n", {0}),
        ("cpu0 99 0 0 99 0 - 0 1 0 0\n", {0}),
        ("", {0}),
    ],
    ids=[
        "another core's",
        "one lacks",
        "other numbers",
        "the sum only",
        "no steal",
        "never counts",
        "garbage",
        "empty",
    ],
)
def test_unless_every_usable_core_has_its_line_nothing_is_counted(stat, usable):
    assert cpu_use._cores(stat, usable) is None


@pytest.mark.parametrize("lines", ["cpu{other} 100 0 0 100 0 0 0 0 0 0\n", "cpu{own} 0 0 0 0 0 0 0 0 0 0\n"])
def test_beside_a_busy_loop_what_is_not_counted_is_absent_and_not_0(monkeypatch, tmp_path, lines):
    own = max(os.sched_getaffinity(0))
    (tmp_path / "stat").write_text("cpu  100 0 0 100 0 0 0 0 0 0\n" + lines.format(own=own, other=own + 1))
    monkeypatch.setattr(cpu_use, "STAT", tmp_path / "stat")
    before = cpu_use.cpu_counters()
    while time.process_time() < before.own_s + 0.05:
        pass
    meanwhile = cpu_use_between(before, cpu_use.cpu_counters())
    assert (meanwhile["foreign_cores"], meanwhile["stolen_cores"]) == (None, None)
    assert meanwhile["parent_cores"] > 0


def test_between_two_looks_by_hand():
    before = CpuCounters(clock_s=100, used_s=50, stolen_s=5, own_s=2, children_s=10)
    after = CpuCounters(clock_s=110, used_s=65, stolen_s=6, own_s=2.05, children_s=20)
    assert cpu_use_between(before, after) == pytest.approx(
        {"parent_cores": 0.005, "foreign_cores": (15 - 0.05 - 10) / 10, "stolen_cores": 0.1}
    )


def test_ticks_that_round_down_are_not_negative_use():
    before, after = CpuCounters(0, 0, 0, 0, 0), CpuCounters(1, 0.99, 0, 0, 1.0)
    assert cpu_use_between(before, after)["foreign_cores"] == 0


@pytest.mark.parametrize(
    "after",
    [
        CpuCounters(110, 65, 6, 2, 20, cores=frozenset({1})),
        CpuCounters(110, 65, 4.99, 2, 20, cores=frozenset({0, 1})),
        CpuCounters(110, 49.99, 6, 2, 20, cores=frozenset({0, 1})),
        CpuCounters(110, 50, 5, 2, 19, cores=frozenset({0, 1})),  # children worked for 9 s, and the cores say nothing
    ],
    ids=["other cores", "steal went back", "use went back", "they stand still"],
)
def test_what_was_not_counted_of_the_same_cores_is_absent(after):
    meanwhile = cpu_use_between(CpuCounters(100, 50, 5, 2, 10, cores=frozenset({0, 1})), after)
    assert meanwhile == {"parent_cores": 0, "foreign_cores": None, "stolen_cores": None}


def test_a_look_says_of_which_cores_it_is(monkeypatch):
    monkeypatch.setattr(cpu_use.os, "sched_getaffinity", lambda pid: {0})
    assert cpu_use.cpu_counters().cores == {0}


def test_what_the_system_does_not_show_is_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_use, "STAT", tmp_path / "stat")
    before = cpu_use.cpu_counters()
    meanwhile = cpu_use_between(before, cpu_use.cpu_counters())
    assert (meanwhile["foreign_cores"], meanwhile["stolen_cores"]) == (None, None)
    assert meanwhile["parent_cores"] is not None


BURN = "import time; start = time.process_time()\nwhile time.process_time() - start < 1.0: pass"


def test_the_work_of_a_stranger_is_foreign():
    """Others that are at work meanwhile can only add to it."""
    stranger = subprocess.Popen([sys.executable, "-c", BURN])
    wait_for(lambda: cpu_time_s([psutil.Process(stranger.pid)]) > 0.1, "it is at work")
    before = cpu_use.cpu_counters()
    time.sleep(0.8)
    meanwhile = cpu_use_between(before, cpu_use.cpu_counters())
    stranger.wait()
    assert meanwhile["foreign_cores"] > 0.3
    assert meanwhile["parent_cores"] < 0.1


def test_the_work_of_an_ended_child_is_not():
    """As long as the measured process lives its use is counted with all use; once it has ended, it is taken out."""
    before = cpu_use.cpu_counters()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    after = cpu_use.cpu_counters()
    assert after.children_s - before.children_s >= 1.0
    with_child = after.used_s - before.used_s
    assert cpu_use_between(before, after)["foreign_cores"] * (after.clock_s - before.clock_s) <= with_child - 1.0


def test_a_parent_that_spins_is_seen():
    before = cpu_use.cpu_counters()
    while time.process_time() < before.own_s + 0.3:
        pass
    after = cpu_use.cpu_counters()
    assert cpu_use_between(before, after)["parent_cores"] * (after.clock_s - before.clock_s) > 0.25
