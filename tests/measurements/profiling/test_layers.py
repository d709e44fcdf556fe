"""The clock at each layer: which layers there are, that nothing is left out, and the order of calls on a GPU."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from distilbench.measurements.profiling.measure import layers, sessions
from distilbench.measurements.profiling.summary.derive import OUTSIDE

GPU = torch.device("cuda", 0)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x)


class Model(nn.Module):
    """An embedding, two blocks in a list below another module, a head; work between them belongs to none."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.body = nn.Module()
        self.body.blocks = nn.ModuleList([Block(), Block()])
        self.body.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        for block in self.body.blocks:
            x = block(x)
        return self.head(self.body.norm(x).relu())


NAMES = ["first", "body.blocks.0", "body.blocks.1", "body.norm", "head"]


class CountingMarks:
    """Each reading of the clock is one millisecond after the last one."""

    def __init__(self):
        self.now = itertools.count()

    def mark(self):
        return next(self.now)

    def finish(self):
        pass

    def span_ms(self, start, end):
        return float(end - start)


def test_layers_are_the_blocks_and_what_stands_beside_them():
    assert [name for name, _ in layers.layers_of(Model())] == NAMES
    assert [name for name, _ in layers.layers_of(nn.Linear(2, 2))] == ["Linear"]


def test_layers_of_a_model_of_the_project():
    config = DistilBertConfig(n_layers=2, dim=8, hidden_dim=8, n_heads=2, vocab_size=10)
    names = [name for name, _ in layers.layers_of(DistilBertForSequenceClassification(config))]
    blocks = ["distilbert.transformer.layer.0", "distilbert.transformer.layer.1"]
    assert names == ["distilbert.embeddings", *blocks, "pre_classifier", "classifier", "dropout"]


def test_each_moment_belongs_to_one_layer_or_to_none_of_them():
    model = Model()
    spent = layers.timed(model, lambda: model(torch.ones(1, 4)), CountingMarks())
    assert spent == {OUTSIDE: 6.0, **dict.fromkeys(NAMES, 1.0)}
    assert sum(spent.values()) == 11, "twelve readings: nothing between the first and the last is left out"


def test_no_hook_stays_behind_even_when_the_forward_fails():
    model = Model()
    with pytest.raises(RuntimeError):
        layers.timed(model, lambda: model(torch.ones(1, 3)), layers.HostMarks())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_on_a_cpu_the_layers_take_real_time():
    model = Model()
    spent = layers.timed(model, lambda: model(torch.ones(1, 4)), layers.marks_for(torch.device("cpu")))
    assert all(ms > 0 for ms in spent.values())


class FakeCuda:
    """torch.cuda that notes the order in which it is asked."""

    def __init__(self):
        self.calls = []
        self.memory = self
        self.events = itertools.count()

    def synchronize(self, device):
        assert device == GPU
        self.calls.append("fence")

    def Event(self, enable_timing):
        assert enable_timing
        return FakeEvent(self, next(self.events))

    def _record_memory_history(self, **how):
        self.calls.append(f"history {how}")

    def _dump_snapshot(self, file):
        self.calls.append("dump")


class FakeEvent:
    def __init__(self, cuda, number):
        self.cuda, self.number = cuda, number

    def record(self):
        self.cuda.calls.append(f"event {self.number}")

    def elapsed_time(self, other):
        assert self.cuda.calls[-1] == "fence", "an event has no time before the device has come to it"
        return float(other.number - self.number)


def test_on_a_gpu_events_mark_the_layers_and_fences_stand_only_around_the_forward():
    model, cuda = Model(), FakeCuda()
    spent = layers.timed(model, lambda: model(torch.ones(1, 4)), layers.CudaMarks(GPU, cuda))
    assert cuda.calls == ["fence", *(f"event {number}" for number in range(12)), "fence"]
    assert sum(spent.values()) == 11


def test_on_a_gpu_a_snapshot_holds_one_forward_and_recording_ends_with_it(tmp_path):
    cuda = FakeCuda()
    assert sessions.snapshot(tmp_path / "x", lambda: cuda.calls.append("forward"), GPU, cuda) is None
    history = ["history {'max_entries': 100000}", "forward", "fence", "dump", "history {'enabled': None}"]
    assert cuda.calls == ["fence", *history]
    with pytest.raises(ZeroDivisionError):
        sessions.snapshot(tmp_path / "x", lambda: 1 / 0, GPU, cuda)
    assert cuda.calls[-1] == "history {'enabled': None}"
    assert sessions.snapshot(tmp_path / "x", lambda: None, torch.device("cpu")) == "the model ran on the CPU"


class FakeTools:
    """torch.profiler that notes the order in which it is asked."""

    class ProfilerActivity:
        CPU, CUDA = "cpu", "cuda"

    def __init__(self):
        self.calls = []

    def schedule(self, **plan):
        return plan

    def profile(self, **how):
        self.how = how
        return self

    def record_function(self, name):
        self.calls.append(name)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def step(self):
        self.calls.append("step")

    def export_chrome_trace(self, file):
        with open(file, "w") as out:  # noqa: PTH123 - as torch is given it
            out.write('{"traceEvents": [], "traceName": "/home/me/x", "host_name": "mine"}')


def test_on_a_gpu_the_fence_is_within_the_annotation_of_the_forward(tmp_path, monkeypatch):
    tools = FakeTools()
    monkeypatch.setattr(sessions, "synchronize", lambda device: tools.calls.append(f"fence {device}"))
    steps = itertools.repeat(lambda: tools.calls.append("forward"))
    file = tmp_path / "trace.json"
    sessions.session(file, sessions.Schedule(wait=0, warmup=1, active=1), steps, GPU, sessions.OPERATORS, tools)
    one = [sessions.FORWARD, "forward", "fence cuda:0", sessions.NULL, "step"]
    assert tools.calls == one * 2
    assert tools.how["activities"] == ["cpu", "cuda"]
    assert tools.how["schedule"] == {"wait": 0, "warmup": 1, "active": 1, "repeat": 1}
    assert "with_stack" not in tools.how, "to follow Python would distort the times"
    assert file.read_text() == '{"traceEvents":[]}', "no path and no name of a machine"
    sessions.session(file, sessions.Schedule(0, 0, 1), steps, torch.device("cpu"), sessions.stacks(), tools)
    assert tools.how["with_stack"]
    assert tools.how["activities"] == ["cpu"]
