"""The accuracy on a split, exact for any number of processes: no row is padded, left out or counted twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from distilbench.errors import ImplausibleError
from distilbench.training.corpus import Rows
from distilbench.training.ranks import Ranks


def batches_of(rows: Rows, size: int) -> list[list[int]]:
    """Batches of rows of similar length: the same ones for any number of processes, so that logits are the same."""
    order = sorted(range(len(rows)), key=rows.lengths.__getitem__)
    return [order[i : i + size] for i in range(0, len(order), size)]


@torch.inference_mode()
def evaluate(
    classifier: Callable[..., torch.Tensor], rows: Rows, size: int, ranks: Ranks
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Each process classifies every world-th batch; counts are added up.

    Returns:
        (`loss`, mean over rows; `correct`; `rows`; for all processes alike, the predictions of all rows in their order;
        for the first process alone).

    Raises:
        ImplausibleError: a row was counted twice or not at all, or a loss is not finite.
    """
    total, correct, seen, predictions = 0.0, 0, 0, []
    for batch in batches_of(rows, size)[ranks.rank :: ranks.world]:
        tensors = rows.collate([rows[i] for i in batch])
        labels = tensors["labels"]
        logits = classifier(tensors["input_ids"].to(ranks.device), tensors["attention_mask"].to(ranks.device))
        logits = logits.float().cpu()
        predicted = logits.argmax(-1)
        total += float(cross_entropy(logits, labels, reduction="sum"))
        correct, seen = correct + int((predicted == labels).sum()), seen + len(batch)
        predictions += zip(batch, labels.tolist(), predicted.tolist(), logits.tolist(), strict=True)
    loss, correct, seen = ranks.add(total, correct, seen)
    if seen != len(rows):
        raise ImplausibleError(f"{seen:.0f} rows were classified; there are {len(rows)}")
    if loss != loss or loss == float("inf"):
        raise ImplausibleError(f"the loss of the evaluation is {loss}: a lower learning_rate may help")
    gathered = ranks.gather(predictions)
    found = sorted(row for part in gathered or [] for row in part)
    told = [
        {"sample": rows.samples[i], "label": label, "predicted": predicted, "logits": logits}
        for i, label, predicted, logits in found
    ]
    return {"loss": loss / seen, "correct": int(correct), "rows": int(seen)}, told
