"""The roofline: counted work against torch's own counter and against hand counts, measured rates that can be true."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import waiting
from torch.utils.flop_counter import FlopCounterMode
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from distilbench.errors import DeviceError
from distilbench.harness import ceilings
from distilbench.measurements.sweep.measure import worker
from distilbench.sources.families import distilbert
from distilbench.sources.families.distilbert import FAMILY
from distilbench.sources.models import LoadedModel

CPU = torch.device("cpu")
D, HIDDEN, LAYERS, VOCABULARY = 64, 128, 2, 100


def tiny_config() -> DistilBertConfig:
    config = DistilBertConfig(n_layers=LAYERS, dim=D, hidden_dim=HIDDEN, n_heads=4, vocab_size=VOCABULARY)
    config._attn_implementation = "eager"  # the counter does not see into the fused kernel
    return config


@pytest.fixture(scope="module")
def tiny():
    """A tiny model as the loader gives it, as far as is needed here."""
    module = DistilBertForSequenceClassification(tiny_config()).eval()
    return SimpleNamespace(module=module, cost=partial(LoadedModel.cost, SimpleNamespace(module=module, family=FAMILY)))


@pytest.fixture
def small(monkeypatch):
    """Products and copies that take microseconds."""
    monkeypatch.setattr(ceilings, "SHAPES", {"cpu": ((16, 32, 8), (64, 64, 64))})
    monkeypatch.setattr(ceilings, "LARGE_BYTES", 2**16)


# ------------------------------------------------------------------ counted


@pytest.mark.parametrize(("batch_size", "length"), [(2, 8), (3, 17), (1, 1)])
def test_flops_are_those_that_torch_counts(tiny, batch_size, length):
    """Exactly: torch's counter takes matrix products only as well, two FLOPs per multiplication and addition."""
    ids = torch.ones(batch_size, length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        tiny.module(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert distilbert.forward_flops(tiny.module.config, batch_size, length) == counter.get_total_flops()


def test_the_base_shape_needs_11_gigaflops_per_sample_of_128_tokens():
    assert distilbert.forward_flops(DistilBertConfig(), 1, 128) == pytest.approx(11.17e9, rel=0.01)


def test_flops_grow_with_the_batch_and_faster_than_the_length():
    config = DistilBertConfig()
    one = distilbert.forward_flops(config, 1, 128)
    assert distilbert.forward_flops(config, 8, 128) == 8 * one
    assert 2 * one < distilbert.forward_flops(config, 1, 256) < 4 * one


def bytes_by_hand(rows: int) -> int:
    """Bytes of the tiny model's float32 weights with this many rows of the tables of words and positions together.

    Rows, the norm after them; per layer four projections, two of the feed-forward block and two norms; the head's two
    products. Every product has a bias.
    """
    embeddings = rows * D + 2 * D
    layer = 4 * (D * D + D) + (D * HIDDEN + HIDDEN) + (HIDDEN * D + D) + 2 * 2 * D
    head = (D * D + D) + (D * 2 + 2)
    return 4 * (embeddings + LAYERS * layer + head)


def test_bytes_by_hand(tiny):
    whole = bytes_by_hand(VOCABULARY + 512) + 512 * 8  # and the numbers of the positions, which no forward needs
    held = sum(t.numel() * t.element_size() for t in (*tiny.module.parameters(), *tiny.module.buffers()))
    assert held == whole, "else the count by hand is wrong"
    ids = torch.arange(12).reshape(2, 6)
    assert distilbert.forward_bytes(tiny.module, ids) == bytes_by_hand(12 + 6) + 12 * 16


def test_a_word_that_stands_twice_is_read_once(tiny):
    assert distilbert.forward_bytes(tiny.module, torch.zeros(2, 6, dtype=torch.int64)) == bytes_by_hand(1 + 6) + 12 * 16


def test_half_the_precision_moves_half_the_weights(tiny):
    module = DistilBertForSequenceClassification(tiny_config()).to(torch.bfloat16)
    half = SimpleNamespace(module=module)
    ids = torch.arange(12).reshape(2, 6)
    moved = [distilbert.forward_bytes(model.module, ids) - ids.numel() * 16 for model in (half, tiny)]
    assert moved[0] == moved[1] / 2


def test_a_cycle_costs_what_its_batches_cost(tiny):
    shapes = [(2, 8), (2, 5), (1, 11)]
    tensors = [(torch.zeros(shape, dtype=torch.int64),) * 2 for shape in shapes]
    assert worker.cycle_cost(tiny, tensors) == {
        "flops_per_cycle": sum(distilbert.forward_flops(tiny.module.config, *shape) for shape in shapes),
        "bytes_per_cycle": sum(distilbert.forward_bytes(tiny.module, ids) for ids, _ in tensors),
    }
    assert worker.cycle_cost(tiny, tensors[:1])["flops_per_cycle"] == 2179584, "what torch counts for 2 x 8"


# ------------------------------------------------------------------ measured


class FakeTime:
    """A clock that stands still but for the work, whose runs take these seconds, the last one for ever."""

    def __init__(self, *takes: float) -> None:
        self.takes, self.now, self.runs = takes, 100.0, 0

    def perf_counter(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self.takes[min(self.runs, len(self.takes) - 1)]
        self.runs += 1


@pytest.mark.parametrize(
    ("takes", "seconds", "fastest", "runs"),
    [
        ((0.25, 4, 2, 3, 1), 0.0, 2, 4),  # the first is not counted; three are, however long they take
        ((8, 4, 2, 3, 1), 10.0, 1, 5),
        ((1, 1), 10.0, 1, 11),
    ],
)
def test_the_fastest_run_counts_once_the_time_is_over(monkeypatch, takes, seconds, fastest, runs):
    clock = FakeTime(*takes)
    monkeypatch.setattr(ceilings, "time", clock)
    assert ceilings._fastest(clock.work, CPU, seconds) == fastest
    assert clock.runs == runs


def test_work_on_a_device_is_timed_between_two_fences(monkeypatch):
    steps = []
    monkeypatch.setattr(ceilings, "time", SimpleNamespace(perf_counter=lambda: steps.append("clock") or len(steps)))
    monkeypatch.setattr(ceilings, "synchronize", lambda device: steps.append(f"fence {device}"))
    ceilings._fastest(lambda: steps.append("work"), torch.device("cuda:1"), 0.0)
    assert steps[:2] == ["work", "clock"], "a run before, then the deadline"
    assert steps[2:-1] == ["fence cuda:1", "clock", "work", "fence cuda:1", "clock"] * 3


def test_the_best_run_is_faster_than_the_average():
    taken = []

    def work() -> None:
        """Busy for 0.2, 0.4 and 0.6 ms in turn."""
        start = time.perf_counter()
        while time.perf_counter() < start + (1 + len(taken) % 3) * 2e-4:
            pass
        taken.append(time.perf_counter() - start)

    best_s = ceilings._fastest(work, CPU, 0.02)
    assert len(taken) > 4
    assert min(taken[1:]) <= best_s < sum(taken[1:]) / len(taken[1:])


def test_rates_follow_from_work_and_time(monkeypatch, small):
    seconds_of = iter([4.0, 64.0, 0.5, 0.2])  # two products, copying, reading
    asked = []
    monkeypatch.setattr(ceilings, "_fastest", lambda work, device, seconds: asked.append(seconds) or next(seconds_of))
    assert ceilings.ceilings(CPU, ["float32"], 3.0) == {
        "matrix_flops_per_s": {"float32": max(2 * 16 * 32 * 8 / 4, 2 * 64**3 / 64)},
        "memory_bytes_per_s": 2**16 / 0.2,
    }
    assert asked == [1.5, 1.5, 1.5, 1.5], "the products share the time, and both ways through memory"


def test_the_best_product_counts_wherever_it_stands(monkeypatch, small):
    seconds_of = iter([1.0, 1e6, 1.0, 1.0])
    monkeypatch.setattr(ceilings, "_fastest", lambda work, device, seconds: next(seconds_of))
    assert ceilings.ceilings(CPU, ["float32"], 1.0)["matrix_flops_per_s"] == {"float32": 2 * 16 * 32 * 8}


def test_every_product_is_computed_in_its_dtype(monkeypatch, small):
    made = []
    monkeypatch.setattr(ceilings, "_fastest", lambda work, device, seconds: made.append(work()) or 1.0)
    ceilings.ceilings(CPU, ["float32", "bfloat16"], 1.0)
    shapes = [(16, 8), (64, 64)]
    *products, copied, added = made
    assert [(tuple(out.shape), out.dtype) for out in products] == [
        *((shape, torch.float32) for shape in shapes), *((shape, torch.bfloat16) for shape in shapes)
    ]  # fmt: skip
    assert copied.numel() * 4 == 2**16
    assert copied.eq(1).all(), "it was copied"
    assert added == 2**16 / 4, "all of it was read"


def test_this_machine_has_ceilings(small):
    found = ceilings.ceilings(CPU, ["float32", "bfloat16"], 0.005)
    assert list(found["matrix_flops_per_s"]) == ["float32", "bfloat16"]
    assert all(1e3 < rate < 1e18 for rate in (*found["matrix_flops_per_s"].values(), found["memory_bytes_per_s"]))


# ------------------------------------------------------------------ the job


def put_job(folder, **given):
    file = folder / "ceilings.json"
    file.write_text(json.dumps({"device": "cpu", "dtypes": ["float32"], "seconds": 0.005, "num_threads": 1} | given))
    return file


@pytest.fixture
def threads_of():
    """Leaves torch's number of threads as it was."""
    before = torch.get_num_threads()
    yield torch.get_num_threads
    torch.set_num_threads(before)


def test_the_result_is_written_beside_the_job(tmp_path, small, threads_of):
    for threads in (2, 1):
        assert ceilings.main(put_job(tmp_path, num_threads=threads)) == 0
        assert threads_of() == threads
    found = json.loads((tmp_path / "ceilings.result.json").read_text())
    assert found["matrix_flops_per_s"]["float32"] > 0
    assert found["memory_bytes_per_s"] > 0


def test_a_device_that_is_not_there_leaves_no_result(tmp_path, threads_of):
    with pytest.raises(DeviceError, match="cuda:99"):
        ceilings.main(put_job(tmp_path, device="cuda:99"))
    assert not (tmp_path / "ceilings.result.json").exists()


def test_the_command_measures_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "distilbench.harness", "distilbench.harness.ceilings", str(put_job(tmp_path))]
    done = waiting.run(command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = json.loads((tmp_path / "ceilings.result.json").read_text())
    assert 1e8 < found["matrix_flops_per_s"]["float32"] < 1e14, "FLOP/s of one core"
    assert 1e8 < found["memory_bytes_per_s"] < 1e13
