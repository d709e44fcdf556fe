from types import SimpleNamespace

import pytest
import torch

from distilbench.training import clock
from distilbench.training.clock import StepClock


class FakeEvent:
    """An event of a GPU whose queue takes one ms for each mark."""

    calls: list[str] = []  # noqa: RUF012
    at = 0

    def record(self) -> None:
        FakeEvent.at += 1
        self.ms = FakeEvent.at
        FakeEvent.calls.append(f"record {self.ms}")

    def elapsed_time(self, other: "FakeEvent") -> float:
        FakeEvent.calls.append("read")
        return float(other.ms - self.ms)


def test_phases_that_come_more_than_once_are_added_up(monkeypatch):
    times = iter([0, 0, 0, 0, 10, 30, 60, 61, 63, 66, 166])  # each start reads it twice
    monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: next(times) * 1_000_000)
    step = StepClock(torch.device("cpu"), None)
    step.start()
    for phase in ("data", "forward", "backward", "data", "forward", "backward", "optimizer"):
        step.mark(phase)
    found = step.end()
    assert {name: found[f"{name}_ms"] for name in clock.PHASES} == {
        "data": 11, "forward": 22, "backward": 33, "optimizer": 100,
    }  # fmt: skip
    assert (found["step_ms"], found["allreduce_ms"], found["allreduce_start_ms"]) == (166, 0, 0)


def test_on_a_gpu_marks_are_events_and_the_fence_comes_before_they_are_read(monkeypatch):
    FakeEvent.calls, FakeEvent.at = [], 0
    monkeypatch.setattr(clock, "synchronize", lambda device: FakeEvent.calls.append("fence"))
    step = StepClock(SimpleNamespace(type="cuda"), FakeEvent)
    step.start()
    for phase in clock.PHASES:
        step.mark(phase)
    found = step.end()
    assert found["forward_ms"] == 1.0
    assert found["step_ms"] == 4.0
    order = FakeEvent.calls
    assert order.index("fence") > order.index("record 6")
    assert order.index("read") > order.index("fence")


@pytest.mark.parametrize(
    ("spans", "covered"),
    [([], 0), ([(0, 2), (5, 6)], 3), ([(0, 4), (1, 2), (3, 7)], 7)],
)
def test_buckets_that_overlap_count_once(spans, covered):
    assert clock._covered(spans) == covered
