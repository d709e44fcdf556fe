from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from distilbench.errors import DeviceError
from distilbench.training import ranks
from distilbench.training.ranks import Ranks, joined

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"), "none")


def test_a_single_process_waits_for_nobody():
    ALONE.wait()
    ALONE.wait_for_preparation()
    assert ALONE.add(1, 2.5) == [1.0, 2.5]
    assert ALONE.gather("x") == ["x"]
    assert ALONE.told({"a": 1}) == {"a": 1}
    assert ALONE.is_first


def test_without_torchrun_this_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu", 10) as here:
        assert (here.rank, here.world, here.backend, here.device.type) == (0, 1, "none", "cpu")
        assert not torch.distributed.is_initialized()


def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch):
    monkeypatch.setattr(ranks, "available", lambda: ["cpu", "cuda:0", "cuda:1"])
    assert ranks._device_of("cuda:0", 1, 2) == "cuda:1"
    assert ranks._device_of("cuda:1", 0, 1) == "cuda:1", "a single process takes what it is given"
    assert ranks._device_of("cpu", 1, 2) == "cpu"


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(ranks, "available", lambda: ["cpu", "cuda:0"])
    message = r"2 processes were started .* there is 1\. Give torchrun --nproc-per-node=1, or train on the CPU"
    with pytest.raises(DeviceError, match=message):
        ranks._device_of("cuda:0", 0, 2)


def test_nccl_is_for_gpus_and_the_group_is_left_also_after_an_error(monkeypatch):
    calls = []
    variables = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "available", lambda: ["cpu", "cuda:0", "cuda:1"])
    monkeypatch.setattr(ranks, "select", lambda name: calls.append(f"select {name}") or torch.device(name))
    monkeypatch.setattr(ranks, "_store", lambda *_: "store")
    monkeypatch.setattr(
        ranks.dist, "init_process_group", lambda backend, store, **_: calls.append(f"init {backend} by {store}")
    )
    monkeypatch.setattr(ranks.dist, "new_group", lambda backend, timeout: calls.append(f"group {backend}"))
    monkeypatch.setattr(ranks.dist, "destroy_process_group", lambda: calls.append("destroy"))

    def fail():
        with joined("cuda:0", 10) as here:
            calls.append((here.rank, here.local_rank, here.backend))
            raise KeyError("mine")

    with pytest.raises(KeyError):
        fail()
    assert calls == ["select cuda:1", "init nccl by store", "group gloo", (1, 1, "nccl"), "destroy"]


def test_what_killed_processes_left_is_not_seen_by_those_that_are_started_again(monkeypatch):
    """torchrun keeps one store for all of its attempts."""
    kept = dist.HashStore()
    monkeypatch.setattr(ranks.dist, "rendezvous", lambda *_, **__: iter([(kept, 0, 2)]))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    ranks._store(0, 2, True, timedelta(seconds=1)).set("address", "of the killed one")
    assert ranks._store(1, 2, True, timedelta(seconds=1)).check(["address"])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not ranks._store(0, 2, True, timedelta(seconds=1)).check(["address"])
    assert ranks._store(0, 2, False, timedelta(seconds=1)) is kept, "of several machines each counts for itself"
