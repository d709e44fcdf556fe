"""The measuring loop without a model (with one: test_timing), and forwards that are slower on purpose."""

from __future__ import annotations

import mmap
from types import SimpleNamespace

import pytest

from distilbench.collectors.latency import HostClock
from distilbench.collectors.telemetry import Telemetry
from distilbench.harness import loop
from distilbench.measurements.calibration.workload import PROTOCOL
from distilbench.measurements.sweep.summary import derive


@pytest.mark.parametrize("percent", [2, 5, 10])
def test_a_slowed_variant_takes_that_much_longer(percent, monkeypatch):
    """By a clock of which each reading is a microsecond later: the forward seems to take 1000 of them."""
    readings = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(loop.time, "perf_counter_ns", lambda: next(readings))

    def forward():
        for _ in range(999):
            next(readings)
        return "logits"

    assert loop.slowed(forward, percent / 100)() == "logits"
    assert next(readings) / 1e6 == pytest.approx(1 * (1 + percent / 100), rel=0.003)


PAGES = 500


def touch_new_pages() -> None:
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE) as block:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            block.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(PAGES):
            block[page * mmap.PAGESIZE] = 1


def test_pages_fetched_from_the_system_are_counted():
    """Half of the iterations fetch pages; the warm-up's are not counted."""
    made = loop.Loop(PROTOCOL, [touch_new_pages, int], [1, 1], HostClock(), Telemetry())
    for cycle in range(4):
        made._cycle(cycle, warmup=cycle == 0)
    assert [row.get("page_faults") is not None for row in made.rows] == [False, True] * 4
    made.rows[1]["page_faults"] = 10**6
    assert PAGES / 2 <= derive.timing_fields(made.rows)["page_faults_per_iteration"] < PAGES


def test_without_a_count_of_pages_nothing_is_said():
    made = loop.Loop(PROTOCOL, [int], [1], HostClock(), Telemetry())
    made._cycle(0, warmup=False)
    del made.rows[0]["page_faults"]  # as in runs of an earlier version
    assert derive.timing_fields(made.rows)["page_faults_per_iteration"] is None


def test_a_system_that_counts_no_pages_says_so_and_not_zero(monkeypatch):
    """No process starts without a fault: a count of 0 is none."""
    monkeypatch.setattr(loop.resource, "getrusage", lambda who: SimpleNamespace(ru_minflt=0, ru_utime=0, ru_stime=0))
    made = loop.Loop(PROTOCOL, [int], [1], HostClock(), Telemetry())
    made._cycle(0, warmup=False)
    assert made.rows[0]["page_faults"] is None
    assert derive.timing_fields(made.rows)["page_faults_per_iteration"] is None
