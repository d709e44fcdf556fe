"""The energy of epochs, with counters that say what they are told (no machine of the tests has any)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from distilbench.collectors.energy_source import Source
from distilbench.errors import DistilbenchError, RunError
from distilbench.training.energy import EpochMeter
from distilbench.training.ranks import Ranks


class Counter(Source):
    name, parts = "counter", ["a"]

    def __init__(self, *joules: float | Exception, scope: str = "host") -> None:
        self.left, self.scope, self.calls = list(joules), scope, []

    def begin(self) -> None:
        self.calls.append("begin")

    def end(self) -> float:
        self.calls.append("end")
        if isinstance(value := self.left.pop(0), Exception):
            raise value
        return value

    def poll(self) -> None:
        self.calls.append("poll")

    def abandon(self) -> None:
        self.calls.append("abandon")


@dataclass(frozen=True)
class Pair(Ranks):
    """One of two processes, the other of which says what it is told to."""

    other: tuple = field(default=(None, None, None, "", False))

    def gather(self, thing):
        return [thing, self.other]

    def told(self, thing):
        return thing


def ranks(local_rank: int = 0, rank: int = 0, **other) -> Ranks:
    where = {"rank": rank, "world": 2, "local_rank": local_rank, "local_world": 2}
    return Pair(**where, device=torch.device("cpu"), backend="gloo", **other)


ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"), "none")


def test_a_window_is_an_epoch():
    counter = Counter(12.5, 7.0)
    meter, done = EpochMeter(ALONE, ([counter], "")), []

    def work() -> None:
        done.append(list(counter.calls))
        meter.poll()

    found = meter.over(work)
    assert found == {"energy_J": 12.5, "energy_source": "counter", "energy_scope": "host", "energy_reason": None}
    assert done == [["begin"]]
    assert counter.calls == ["begin", "poll", "end"]
    assert meter.over(work)["energy_J"] == 7.0


def test_where_nothing_measures_it_says_why():
    meter = EpochMeter(ALONE, ([], "no counter here"))
    done = []
    assert meter.over(lambda: done.append(1))["energy_reason"] == "no counter here"
    meter.poll()
    assert done == [1]


@pytest.mark.parametrize("joules", [-1.0, float("nan")])
def test_a_window_that_cannot_be_believed_has_no_joules(joules):
    meter = EpochMeter(ALONE, ([Counter(joules)], ""))
    found = meter.over(lambda: None)
    assert found["energy_J"] is None
    assert found["energy_reason"]


def test_a_counter_that_fails_is_left_out_and_the_training_goes_on():
    meter = EpochMeter(ALONE, ([Counter(DistilbenchError("the counter is gone"))], ""))
    assert "the counter is gone" in meter.over(lambda: None)["energy_reason"]
    assert "the counter is gone" in meter.over(lambda: None)["energy_reason"], "later, too"


def test_an_error_of_the_training_is_not_the_counter_s():
    counter = Counter(1.0)
    meter = EpochMeter(ALONE, ([counter], ""))

    def fail() -> None:
        raise RunError("not finite")

    with pytest.raises(RunError, match="not finite"):
        meter.over(fail)
    assert counter.calls == ["begin", "abandon"]


def test_the_processor_is_counted_once_and_each_gpu_by_its_own_process():
    host = EpochMeter(ranks(other=(None, None, None, "", False)), ([Counter(10.0)], ""))
    assert host.over(lambda: None)["energy_J"] == 10
    second = EpochMeter(ranks(1, 1, other=("counter", "host", 10.0, "", True)), ([Counter(99.0)], ""))
    assert second.over(lambda: None)["energy_J"] == 10, "the second process counts nothing"
    gpu = EpochMeter(ranks(other=("counter", "gpu", 5.0, "", True)), ([Counter(10.0, scope="gpu")], ""))
    assert gpu.over(lambda: None)["energy_J"] == 15
    job = EpochMeter(
        ranks(0, 2, other=("s", "nodes of the job", 8.0, "", True)), ([Counter(9, scope="nodes of the job")], "")
    )
    assert job.over(lambda: None)["energy_J"] == 8, "the first process counts for all nodes"


def test_where_one_process_lacks_its_reading_there_is_no_sum():
    meter = EpochMeter(ranks(other=("counter", "gpu", None, "GPU 1 fell", True)), ([Counter(10.0, scope="gpu")], ""))
    found = meter.over(lambda: None)
    assert (found["energy_J"], found["energy_reason"]) == (None, "GPU 1 fell")


def test_without_being_told_it_looks_for_counters():
    meter = EpochMeter(ALONE)
    assert meter.windows or meter.why
