"""Speed-ups on made-up records: which are said, how sure they are, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from distilbench import paths, studies
from distilbench.measurements.training.measure import design
from distilbench.measurements.training.records import TrainingRecord
from distilbench.measurements.training.show import entry, tables
from distilbench.measurements.training.summary import join
from distilbench.report import defaults

SHARES = {"data": 0.05, "forward": 0.3, "backward": 0.55, "optimizer": 0.1, "allreduce": 0.2}
TIMES = {"mean": 20.0, "p50": 20.0, "p90": 21.0, "max": 25.0}
EPOCH = {
    "epoch": 1, "steps": 4, "steps_skipped": 0, "rows": 32, "seconds": 3.0, "training_loss": 0.4,
    "training_accuracy": 0.8, "validation_accuracy": 0.7, "validation_rows": 10, "validation_loss": 0.5,
    "evaluation_s": 0.2, "energy_J": None, "energy_source": None, "energy_scope": None,
    "energy_reason": "no counter",
}  # fmt: skip


class Made:
    """A run folder with records that were made up."""

    def __init__(self, folder: Path, **given) -> None:
        self.folder = folder
        resolved = studies.resolve("agnews", {"profile": "full", "source": "embedded"} | given)
        self.cells = {cell.cell: cell for cell in design.cells_of(resolved.params)}
        config = {"run_id": "made", "study": "agnews", "design_hash": resolved.design_hash}
        config |= {"parameters": resolved.params.model_dump(), "cells": [c.model_dump() for c in self.cells.values()]}
        paths.write_json(folder / "config.json", config)

    def add(self, cell: str, repetition: int = 0, rate: float = 100.0, pass_name: str = "steps", **changed) -> None:
        of = self.cells[cell]
        share = of.processes
        fields = of.model_dump() | {
            "study": "agnews", "pass": pass_name, "repetition": repetition, "status": "ok", "started": "now",
            "seconds": 1.0, "throughput_samples_per_s": rate, "step_ms": 20.0, "step_times_ms": TIMES,
            "shares": SHARES, "padding_share": 0.1, "threads_per_process": 2 // share, "warmup_steps": 1,
            "cores_of_processes": [[0, 1]] if share == 1 else [[0], [1]], "peak_rss_MiB": [100.0] * share,
            "files_sha256": {f"{cell}-{pass_name}-{repetition}": "x"}, "backend": "gloo",
        }  # fmt: skip
        record = TrainingRecord(**fields | changed)
        with (self.folder / "training.jsonl").open("a") as opened:
            opened.write(record.to_line() + "\n")

    def summary(self) -> dict:
        return join.summarise(self.folder)

    def cell(self, name: str) -> dict:
        return next(one for one in self.summary()["cells"] if one["cell"] == name)


ONE, MANY = "p1-b32", "p2-strong-b16"


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(tmp_path, trainings="none", loop_blocks=0, scalings=["strong"])


def test_a_speed_up_is_the_ratio_within_rounds(made):
    """The machine was half as fast in two rounds; in each two processes have 80 % of the rate of one."""
    for number, rate in enumerate([100, 50, 100, 50, 100]):
        made.add(ONE, number, rate)
        made.add(MANY, number, 0.8 * rate)
    found = made.cell(MANY)
    assert found["speedup"] == pytest.approx(0.8)
    assert found["speedup_95"] == pytest.approx([0.8, 0.8])
    assert (found["linear_speedup"], found["efficiency"]) == (1, pytest.approx(0.8))
    assert found["throughput_samples_per_s"] == pytest.approx(80)
    assert found["throughput_95"] == [40, 80]
    assert "speedup" not in made.cell(ONE)
    assert made.cell(MANY)["state"] == made.cell(ONE)["state"] == "ok"
    table = tables.results(made.summary()["cells"])
    assert table.loc[1, "speed-up"] == "0.80 (0.80 to 0.80)"
    assert "0.80 (0.80 to 0.80) times as many" in entry.headline(made.summary())


def test_few_repetitions_have_no_interval_and_that_is_doubted(made):
    for number in range(2):
        made.add(ONE, number, 100)
        made.add(MANY, number, 80)
    found = made.cell(MANY)
    assert (found["speedup"], found["speedup_95"], found["state"]) == (pytest.approx(0.8), None, "pending")
    assert found["doubts"] == ["2 repetitions: too few for an interval of the speed-up"]


GPU = {"gpus": ["T4 a"], "peak_cuda_allocated_MiB": [1.0]}


@pytest.mark.parametrize(
    ("one", "many", "why"),
    [
        ({"threads_per_process": 1}, {}, "2 threads in 2 processes against 1 threads in one"),
        ({}, {"threads_per_process": 2}, "4 threads in 2 processes against 2 threads in one"),
        ({"cores_of_processes": [[0]]}, {}, "2 cores against 1"),
        (GPU, {"gpus": ["T4 a", "T4 a"]}, "2 processes share 1 GPUs"),
        (GPU, {"gpus": ["T4 a", "A100 b"]}, "GPUs of several kinds: A100, T4"),
        (GPU, {}, "2 processes share 0 GPUs"),
    ],
)
def test_unequal_budgets_are_refused(made, one, many, why):
    made.add(ONE, 0, 100, **one)
    made.add(MANY, 0, 180, **many)
    found = made.cell(MANY)
    assert why in found["speedup_refused"]
    assert "speedup" not in found
    assert any("the budgets differ" in doubt for doubt in found["doubts"])
    assert tables.results(made.summary()["cells"]).loc[1, "speed-up"] == "not said: unequal budgets"


def test_gpus_of_one_kind_may_be_as_many_times_as_fast(made):
    made.add(ONE, 0, 100, gpus=["T4 a"])
    made.add(MANY, 0, 178, gpus=["T4 a", "T4 b"])
    found = made.cell(MANY)
    assert (found["speedup"], found["linear_speedup"], found["efficiency"]) == (1.78, 2, 0.89)


def test_rounds_that_only_one_has_are_left_out(made):
    made.add(ONE, 0, 100)
    made.add(MANY, 0, 90)
    made.add(ONE, 1, 1000)
    assert made.cell(MANY)["speedup"] == pytest.approx(0.9)


def test_what_failed_or_is_missing_says_so(tmp_path):
    made = Made(tmp_path, repetitions=1, loop_blocks=5, scalings=["strong"])
    assert [one["state"] for one in made.summary()["cells"]] == ["pending", "pending"]
    assert entry.headline(made.summary()) == "Nothing was trained."
    made.add(ONE)
    made.add(MANY, status="failed", error="rank 1: it broke", throughput_samples_per_s=None, files_sha256={})
    assert [one["state"] for one in made.summary()["cells"]] == ["pending", "failed"]
    assert f"{MANY}: not measured (failed)" in defaults.doubts(made.summary())


def test_trainings_and_the_bare_loop_come_with_their_doubts(tmp_path):
    made = Made(tmp_path, repetitions=1, loop_blocks=5, scalings=["strong"])
    test = {"test_accuracy": 0.9, "test_rows": 100, "test_wilson_95": [0.82, 0.94], "best_epoch": 1}
    whole = test | {"training_s": 3.0, "trained_on": "agnews", "interruptions": 1, "epochs": [EPOCH]}
    made.add(ONE)
    made.add(ONE, pass_name="loop", loop_share=0.8, loop_samples_per_s=125.0)
    made.add(ONE, pass_name="train", **whole)
    made.add(MANY)
    energy = {"energy_J": 5.0, "energy_source": "rapl", "energy_scope": "host", "energy_reason": None}
    made.add(MANY, pass_name="train", **whole | {"epochs": [EPOCH | energy | {"steps_skipped": 2}], "interruptions": 0})
    one, many = made.summary()["cells"]
    assert one["state"] == many["state"] == "ok"
    text = " ".join(one["doubts"])
    assert "reaches 80% of the samples/s of a bare loop" in text
    assert "the training was interrupted" in text
    assert "no energy: no counter" in text
    text = " ".join(many["doubts"])
    assert "energy is that of the whole machine" in text
    assert "2 steps were skipped" in text
    assert "in 2 processes (strong)" in entry.headline(made.summary())


def test_a_measured_record_needs_its_numbers(made):
    with pytest.raises(ValidationError, match="a measured record of pass steps has its numbers and files"):
        made.add(ONE, throughput_samples_per_s=None)
    with pytest.raises(ValidationError, match="a measured record of pass loop"):
        made.add(ONE, pass_name="loop")
