"""Several processes under a real torchrun, over gloo."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import training_rows
from waiting import wait_for

from distilbench import paths
from distilbench.runs.rawfiles import read_parquet
from distilbench.training import __main__ as script
from distilbench.training import checkpoint
from distilbench.training.trainer import Trainer

DRIVER = Path(__file__).parents[1] / "training_driver.py"
EXACT = {"max_steps": 20, "epochs": 3, "dropout": 0.0, "warmup_share": 0.1}
#: What is compared, and how near the weights of several processes come to those of one.
SAME_STEP = {
    "adamw": (EXACT | {"dtype": "float64", "optimizer": "adamw"}, 1e-10),
    "sgd": (EXACT | {"dtype": "float32", "optimizer": "sgd", "learning_rate": 0.05}, 1e-6),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, tuple[Path, dict]]:
    """By the number of processes: folder and results of all of these trainings."""
    folder, found = tmp_path_factory.mktemp("many"), {}
    for world in (1, 2, 3):
        place = folder / str(world)
        jobs = {
            name: {
                "params": training_rows.settings(folder, **given, batch_size=12 // world) | {"profile": "ci"},
                "folder": str(place / name),
            }
            for name, (given, _) in SAME_STEP.items()
        }
        paths.write_json(place / "jobs.json", jobs)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        files = [str(DRIVER), str(place / "jobs.json"), str(place / "results.json")]
        done = training_rows.run_command([sys.executable, *launcher, *files])
        assert done.returncode == 0, done.stderr[-3000:]
        found[world] = place, json.loads((place / "results.json").read_text())
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "distilbert_train.pt")["model"]


@pytest.mark.parametrize("name", SAME_STEP)
@pytest.mark.parametrize("world", [2, 3])
def test_many_processes_take_the_steps_of_one(trained, name, world):
    one, many = (weights(trained[number][0] / name) for number in (1, world))
    difference = max(float((one[key] - many[key]).abs().max()) for key in one)
    assert difference <= SAME_STEP[name][1]
    assert difference > 0, "sums of another order differ a little: else nothing was shared out"


@pytest.mark.parametrize("name", SAME_STEP)
def test_the_accuracy_is_the_same_to_the_last_row(trained, name):
    correct = {world: results[name]["test_correct"] for world, (_, results) in trained.items()}
    assert len(set(correct.values())) == 1
    for world, (folder, results) in trained.items():
        every = read_parquet(folder / name / "predictions.parquet")
        found = [row for row in every if row["split"] == "test"]
        assert len({row["sample"] for row in found}) == len(found) == training_rows.TEST
        assert results[name]["processes"] == world


def test_each_process_writes_its_steps(trained):
    for world, (folder, _) in trained.items():
        found = read_parquet(folder / "adamw" / "steps.parquet")
        assert [(row["step"], row["rank"]) for row in found] == [
            (step, rank) for step in range(1, 21) for rank in range(world)
        ]
        whole = [row for row in found if row["step"] == 1]
        assert sum(row["samples"] for row in whole) == 12
        if world > 1:
            assert all(0 < row["allreduce_ms"] < row["step_ms"] for row in found)
            assert len({row["gradient_norm"] for row in whole}) == 1, "they share their gradients"


def test_two_processes_go_on_where_one_was_interrupted(trained, tmp_path, monkeypatch):
    """By the launcher that users call."""
    folder = trained[1][0].parent
    given = SAME_STEP["adamw"][0] | {"checkpoint_steps": 5}
    one_step = Trainer.one_step

    def interrupted(self, *arguments):
        if self.step == 7:
            raise KeyboardInterrupt
        one_step(self, *arguments)

    monkeypatch.setattr(Trainer, "one_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.run(training_rows.params(folder, **given, batch_size=12), tmp_path, {})
    values = training_rows.settings(folder, **given, batch_size=6)
    options = training_rows.command(values, tmp_path)[3:]
    words = [str(paths.repo_root() / "slurm" / "run_ddp.sh"), "--nproc_per_node", "2", *options]
    done = training_rows.run_command(words, DISTILBENCH_BIN=str(Path(sys.executable).parent))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed after step 5, in epoch 1" in done.stdout
    one, many = weights(folder / "1" / "adamw"), weights(tmp_path)
    assert max(float((one[key] - many[key]).abs().max()) for key in one) <= SAME_STEP["adamw"][1]
    assert paths.read_json(tmp_path / "results.json")["processes"] == 2


# ------------------------------------------------------------------ kills


LONGER = {"epochs": 4, "checkpoint_steps": 3, "dropout": 0.1, "batch_size": 6}


def start(values: dict, output: Path) -> psutil.Popen:
    words = training_rows.command(values, output, 2, "--max-restarts=2")
    return psutil.Popen(words, stdout=(output.parent / "said").open("w"), stderr=(output.parent / "errors").open("w"))


def ranks_of(launcher: psutil.Popen) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end meanwhile
        found = [one for one in launcher.children() if "distilbench.training" in " ".join(one.cmdline())]
    return found


def undisturbed(folder: Path) -> dict[str, torch.Tensor]:
    values = training_rows.settings(folder, **LONGER)
    done = training_rows.run_command(training_rows.command(values, folder / "undisturbed", 2))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("epoch 1 of 4: training loss") == 1, "the first process alone says something"
    return weights(folder / "undisturbed")


def kill_once(folder: Path, wanted: dict[str, torch.Tensor], number: int, draw: random.Random) -> None:
    """Kills a rank at some moment after its first state; torchrun starts all of them again, which go on."""
    values, output = training_rows.settings(folder, **LONGER), folder / f"killed-{number}" / "out"
    output.parent.mkdir()
    launcher = start(values, output)
    try:
        wait_for(lambda: checkpoint.state_file(output).is_file(), 120)
        time.sleep(draw.uniform(0, 0.8))
        victim = draw.choice([0, 1])
        with contextlib.suppress(IndexError, psutil.NoSuchProcess):
            ranks_of(launcher)[victim].send_signal(signal.SIGKILL)
        assert launcher.wait(500) == 0, (output.parent / "errors").read_text()[-3000:]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in launcher.children(recursive=True):
                child.kill()
            launcher.kill()
    assert paths.read_json(output / "results.json")["interruptions"] >= 1, "nothing was killed"
    found = weights(output)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_killed_rank_is_started_again_and_the_weights_are_the_same(tmp_path):
    wanted = undisturbed(tmp_path)
    kill_once(tmp_path, wanted, 0, random.Random(0))


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path):
    wanted, draw = undisturbed(tmp_path), random.Random(2026)
    for number in range(10):
        kill_once(tmp_path, wanted, number, draw)


# ------------------------------------------------------------------ what goes wrong


def test_the_traceback_of_the_rank_that_raised_is_what_is_seen(tmp_path):
    values = training_rows.settings(tmp_path, batch_size=6)
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from distilbench.training.trainer import Trainer\n"
        "    def fail(self, *_):\n"
        "        raise ValueError('the disk of this node is odd')\n"
        "    Trainer.one_step = fail\n"
    )
    begun = time.monotonic()
    done = training_rows.run_command(training_rows.command(values, tmp_path / "out", 2), PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "ValueError: the disk of this node is odd" in done.stderr
    assert done.stderr.count("Traceback (most recent call last)") <= 2, "torchrun has one of its own"
    assert time.monotonic() - begun < 100
