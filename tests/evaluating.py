"""What the tests of an evaluation share: a tiny checkpoint with named classes, made-up rows, a job for its process."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from distilbench import paths, studies
from distilbench.measurements.evaluation.measure import run as measuring
from distilbench.measurements.evaluation.measure.spec import EvaluationSpec, Prepared
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

TOKENIZER = paths.repo_root() / "tests" / "data" / "tiny_tokenizer"
NAMES = ("Alarm", "Music", "News", "Taxi", "Weather")
CELL = "sdpa-float32-fixed-16-b004"


def checkpoint(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A tiny random model that gives each of its classes to some rows, saved as anyone would save a trained one."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, DistilBertTokenizerFast

    tokenizer = DistilBertTokenizerFast.from_pretrained(TOKENIZER)
    torch.manual_seed(3)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, n_layers=1, n_heads=2, dim=32, hidden_dim=32,
        initializer_range=0.5, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return folder


def made_up_rows(file: Path, count: int, names: tuple[str, ...] = NAMES) -> Path:
    """Sentences of words that the tiny tokenizer knows, with labels by chance."""
    known = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    words, generator = sorted(word for word in known if word.isalpha()), random.Random(5)
    with file.open("w") as opened:
        opened.write("label\ttext\n")
        for _ in range(count):
            sentence = " ".join(generator.choices(words, k=generator.randrange(3, 20)))
            opened.write(f"{generator.choice(names).lower()}\t{sentence}\n")
    return file


def resolved(results: Path, model: Path, data: Path, **given: Any) -> Resolved:
    """The evaluation of that checkpoint on these rows."""
    usual = {
        "profile": "ci", "source": "local", "model_path": str(model), "data_path": str(data), "tokenizer_path": "",
        "batch_size": 4, "chunk_rows": 8, "results_root": str(results),
    }  # fmt: skip
    return studies.resolve("evaluate", usual | given)


def prepared(design: Resolved) -> tuple[Run, Prepared]:
    """A new run of that design, and what its cells share."""
    run = studies.start(design, new=True)
    return run, measuring.prepare(design.params, run)


def job(run: Run, design: Resolved, shared: Prepared) -> EvaluationSpec:
    """What the process of the first cell is told."""
    ((cell, pass_name, number), *_) = run.kind.plan(design)
    names = {"study": "evaluate", "pass": pass_name, "repetition": number, "attempt": 1}
    return measuring.spec_of(run, design.params, shared, cell.model_dump() | names)
