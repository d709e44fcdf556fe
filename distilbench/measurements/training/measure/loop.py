"""The training's own steps, in turn with a bare loop of forward, backward and update over the same tensors.

What is lost between them is what loading, padding, clipping and notes take. Both do the same products on the same
weights in one process, block by block in turn, so that whatever slows the machine slows both.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from distilbench.machine.device import synchronize
from distilbench.training.order import steps_of
from distilbench.training.trainer import AUTOCAST, Trainer

Batch = dict[str, torch.Tensor]


def blocks(trainer: Trainer, count: int, size: int) -> list[dict[str, Any]]:
    """Pairs of blocks of so many steps, in rows of `records.BLOCKS`; the first pair is a warm-up and counts nowhere.

    Args:
        trainer: in a single process.
        count: pairs that count.
    """
    found = []
    for block, (steps, own, bare) in enumerate(islice(_epochs(trainer, size), count + 1)):
        for kind in ("training", "bare") if block % 2 else ("bare", "training"):
            seconds = _seconds(trainer, steps, own) if kind == "training" else _bare_seconds(trainer, bare)
            rows = sum(rows for rows, _ in steps)
            if block:
                found.append({"block": block, "kind": kind, "steps": len(steps), "rows": rows, "seconds": seconds})
    return found


def _epochs(trainer: Trainer, size: int) -> Any:
    """Blocks of whole steps, epoch after epoch: (steps, where the training takes them from, the same as tensors)."""
    while True:
        steps = steps_of(len(trainer.rows["train"]), 0, trainer.sizes)
        taken, ahead = trainer.batches(), trainer.batches()
        whole = len(steps) // size * size or len(steps)  # fewer steps than a block are one
        for first in range(0, whole, size):
            some = steps[first : first + size]
            forwards = sum(count for _, count in some)
            yield some, taken, list(zip(_weights(some), islice(ahead, forwards), strict=True))
        trainer.epoch += 1


def _weights(steps: list[tuple[int, int]]) -> list[tuple[int, bool]]:
    """Of each forward, the rows of its step, and whether the step ends with it."""
    return [(rows, number == forwards - 1) for rows, forwards in steps for number in range(forwards)]


def _seconds(trainer: Trainer, steps: list[tuple[int, int]], taken: Any) -> float:
    trainer.model.train()
    begun = time.perf_counter()
    for rows, forwards in steps:
        trainer.one_step(taken, rows, forwards)
    synchronize(trainer.ranks.device)
    return time.perf_counter() - begun


def _bare_seconds(trainer: Trainer, batches: list[tuple[tuple[int, bool], Batch]]) -> float:
    device, autocast = trainer.ranks.device, AUTOCAST.get(trainer.params.precision)
    there = [(of, {name: tensor.to(device) for name, tensor in batch.items()}) for of, batch in batches]
    trainer.model.train()
    synchronize(device)
    begun = time.perf_counter()
    for (rows, is_last), batch in there:
        with torch.autocast(device.type, autocast) if autocast else nullcontext():
            logits = trainer.model(batch["input_ids"], batch["attention_mask"])
            loss = cross_entropy(logits, batch["labels"], reduction="sum") / rows
        loss.backward()
        if is_last:
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
    synchronize(device)
    return time.perf_counter() - begun
