"""Trains an embedded classifier: a low-rank adapter (Hu et al. 2021, LoRA) on the converted MiniLM encoder.

    python -m distilbench.sources.embedded_training [TASK]  # rebuild into checkpoints/, compare with the committed one
    python -m distilbench.sources.embedded_training TASK --commit  # maintainers: open the test split, write params/

A recipe was fixed on the validation split. The test split is opened once, by --commit, and its figure is written
beside the adapter; a rebuild is judged on the validation split.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import DistilBertTokenizerFast, get_linear_schedule_with_warmup

from distilbench import paths
from distilbench.errors import ModelError
from distilbench.sources import embedded
from distilbench.sources.embedded_text import Sentence
from distilbench.stats import wilson_interval

log = logging.getLogger("distilbench.embedded_training")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the adapter, besides the pinned packages and the machine's arithmetic."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("q_lin", "v_lin", "out_lin", "lin1", "lin2")
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_share: float = 0.06
    max_length: int = 64
    seed: int = 17
    threads: int = 2


RECIPES = {"movies": Recipe(), "intents": Recipe(threads=1)}


def split_rows(task: str, split: str) -> list[Sentence]:
    """The sentences of one split."""
    return [row for row in embedded.TASKS[task].text.sentences() if row[3] == split]


def split_hashes(task: str) -> dict[str, str]:
    """SHA-256 of each split's ids, texts and labels: names exactly what was trained and tested on."""
    return {
        split: paths.sha256_bytes(
            *(f"{i}\t{label}\t{text}\n".encode() for i, text, label, _ in split_rows(task, split))
        )
        for split in ("train", "validation", "test")
    }


def batches(rows: list, size: int, tokenizer, max_length: int, seed: int | None):
    """Padded batches; with a seed, shuffled but bucketed by length, which saves a third of the padding."""
    rows = list(rows)
    if seed is not None:
        generator = random.Random(seed)
        generator.shuffle(rows)
        pools = [rows[i : i + 50 * size] for i in range(0, len(rows), 50 * size)]
        chunks = [c for pool in pools for c in _chunks(sorted(pool, key=lambda r: len(r[1])), size)]
        generator.shuffle(chunks)
    else:
        chunks = _chunks(rows, size)
    for chunk in chunks:
        inputs = tokenizer(
            [row[1] for row in chunk],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        yield inputs, torch.tensor([row[2] for row in chunk])


def _chunks(rows: list, size: int) -> list[list]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@torch.inference_mode()
def accuracy(model, rows: list, tokenizer, max_length: int = 512) -> float:
    """Share of rows whose label the model predicts."""
    model.eval()
    right = sum(
        int((model(**inputs).logits.argmax(-1) == labels).sum())
        for inputs, labels in batches(rows, 32, tokenizer, max_length, seed=None)
    )
    return right / len(rows)


def train(task: str, recipe: Recipe, rows: list, validation: list, tokenizer):
    """Trains the task's adapter on `rows`; logs loss and validation accuracy per epoch; returns (model, accuracies)."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)  # the order of floating-point sums depends on it
    torch.use_deterministic_algorithms(True)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout,
        target_modules=list(recipe.target_modules), modules_to_save=["pre_classifier", "classifier"],
    )  # fmt: skip
    model = get_peft_model(embedded.pretrained_classifier(embedded.TASKS[task].text.labels), lora)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=recipe.learning_rate)
    steps = recipe.epochs * -(-len(rows) // recipe.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, int(recipe.warmup_share * steps), steps)
    history = []
    for epoch in range(recipe.epochs):
        loss = _epoch(model, optimizer, schedule, recipe, epoch, rows, tokenizer)
        history.append(round(accuracy(model, validation, tokenizer), 4))
        log.info("epoch %d of %d: loss %.3f, validation accuracy %.3f", epoch + 1, recipe.epochs, loss, history[-1])
    return model, history


def _epoch(model, optimizer, schedule, recipe: Recipe, epoch: int, rows: list, tokenizer) -> float:
    """One pass over the training rows; the mean loss."""
    model.train()
    total = count = 0
    for inputs, labels in batches(rows, recipe.batch_size, tokenizer, recipe.max_length, recipe.seed + epoch):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total, count = total + float(loss.detach()), count + 1
        if not math.isfinite(total):
            raise ModelError(f"the loss of step {count} is {float(loss.detach())}: a lower learning_rate may help")
    return total / count


def save_adapter(model, folder: Path) -> Path:
    """Writes the adapter in PEFT's own format, tensors in float16: half the size, and no accuracy lost."""
    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config["default"].save_pretrained(folder)
    state = {name: tensor.half().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(state, folder / "adapter_model.safetensors")
    return folder


def build(task: str, recipe: Recipe, folder: Path, open_test: bool) -> dict:
    """Trains, saves and evaluates the adapter as it will be used (float16 on disk, merged); returns its card."""
    started = time.monotonic()
    tokenizer = DistilBertTokenizerFast.from_pretrained(embedded.tokenizer_dir())
    rows, validation = split_rows(task, "train"), split_rows(task, "validation")
    model, history = train(task, recipe, rows, validation, tokenizer)
    save_adapter(model, folder)
    merged, text = embedded.merged_classifier(task, folder), embedded.TASKS[task].text
    card = {
        "what": f"{embedded.ENCODER}; trained on {text.name}",
        "recipe": asdict(recipe),
        "packages": {p.requirement: p.sha256 for p in (embedded.MINILM, text.package)},
        "splits_sha256": split_hashes(task),
        "adapter_sha256": paths.sha256_file(folder / "adapter_model.safetensors"),
        "validation": _score(merged, validation, tokenizer) | {"accuracy_by_epoch": history},
        "trained": {"seconds": round(time.monotonic() - started), "torch": torch.__version__},
    }
    if open_test:
        card["test"] = _score(merged, split_rows(task, "test"), tokenizer)
    paths.write_json(folder / "card.json", card)
    return card


def _score(model, rows: list, tokenizer) -> dict:
    """Accuracy with its n and 95 % Wilson interval."""
    share = accuracy(model, rows, tokenizer)
    low, high = wilson_interval(round(share * len(rows)), len(rows))
    return {"accuracy": round(share, 4), "n": len(rows), "wilson_95": [round(low, 4), round(high, 4)]}


def main() -> int:
    """Rebuilds the adapter and says how it compares with the committed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=[*embedded.TASKS], default="movies", help="default: movies")
    parser.add_argument("--commit", action="store_true", help="open the test split and replace the committed adapter")
    parser.add_argument("--output", type=Path, default=None, help="folder to write (default: in checkpoints/)")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--learning-rate", type=float, default=None)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    task = embedded.TASKS[arguments.task]
    folder = arguments.output or paths.repo_root() / "checkpoints" / task.folder
    given = {"epochs": arguments.epochs, "learning_rate": arguments.learning_rate}
    recipe = replace(RECIPES[arguments.task], **{name: value for name, value in given.items() if value is not None})
    card = build(arguments.task, recipe, folder, open_test=arguments.commit)
    print(json.dumps(card, indent=2))
    if arguments.commit:
        shutil.copytree(folder, task.adapter_dir, dirs_exist_ok=True)
        return 0
    return compare(card, task.adapter_dir / "card.json")


def compare(card: dict, committed: Path) -> int:
    """0 when the rebuilt adapter is the committed one or within two points of it on the validation split."""
    known = paths.read_json(committed)
    if card["adapter_sha256"] == known["adapter_sha256"]:
        print("identical to the committed adapter")
        return 0
    gap = card["validation"]["accuracy"] - known["validation"]["accuracy"]
    print(f"differs from the committed adapter (another machine or torch); validation accuracy {gap:+.4f}")
    return 0 if abs(gap) <= 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
