"""A small task with four classes, for trainings that take seconds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from distilbench import paths
from distilbench.runs.parameters import resolve
from distilbench.training.params import TrainingParams

WORDS = {  # that the tests' tokenizer knows
    "world": "audience story film scenes music nobody",
    "sports": "start finish lights hours found again",
    "business": "warm dull clever honest noisy bright",
    "sci/tech": "acting moving thrilling charming graceful hollow",
}
TRAIN, TEST = 151, 53  # primes: no number of processes or rows of a batch divides them


def write_rows(file: Path, count: int, seed: int) -> Path:
    """Rows `text TAB label`: words of the class and some others, in random order; no two are equal."""
    draw, lines = random.Random(seed), ["text\tlabel"]
    every = sorted({word for text in WORDS.values() for word in text.split()})
    for number in range(count):
        label = [*WORDS][number % len(WORDS)]
        words = draw.sample(WORDS[label].split(), draw.randint(2, 6)) + draw.sample(every, draw.randint(1, 9))
        draw.shuffle(words)
        lines.append(f"{' '.join(words)} {number}\t{label}")
    paths.write_atomic(file, "\n".join(lines) + "\n")
    return file


def settings(folder: Path, **given) -> dict:
    """Values of a small training on such rows, whose files are written into the folder."""
    train, test = folder / "train.tsv", folder / "test.tsv"
    if not train.is_file():
        write_rows(train, TRAIN, 1)
        write_rows(test, TEST, 2)
    small = {
        "source": "random", "model_size": "tiny", "data_source": "local", "data_path": str(train),
        "test_path": str(test), "tokenizer_path": str(paths.repo_root() / "tests/data/tiny_tokenizer"),
        "epochs": 2, "batch_size": 12, "learning_rate": 1e-3, "validation_share": 0.2, "num_threads": 1,
        "deterministic": True, "max_length": 16, "evaluation_batch_size": 16, "collective_timeout_s": 20.0,
    }  # fmt: skip
    return small | given


def params(folder: Path, **given) -> TrainingParams:
    """The parameters of such a training."""
    values = settings(folder, **given) | {"profile": "ci"}
    return resolve(TrainingParams, "agnews", values, with_file=False).params


def command(values: dict, output: Path, processes: int = 1, *torchrun: str) -> list[str]:
    """What a user would type."""
    options = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    script = ["-m", "distilbench.training", "--output", str(output), *options]
    if processes == 1:
        return [sys.executable, *script]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        *torchrun,
    ]
    return [*launcher, *script]


def run_command(words: list[str], timeout: float = 240, **variables: str) -> subprocess.CompletedProcess:
    """Runs it; what it said. All of its processes are gone afterwards."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | variables,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, out, err)
