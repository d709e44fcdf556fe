"""The fixed, hashed list of batches of a cell: one pass over it is a cycle."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from distilbench import paths

MOST_TOKENS = 512  # what is longer is cut, whatever the length policy; `models.check_fit` asks the model's positions


@dataclass(frozen=True)
class Padding:
    """How sequences are filled up and cut.

    Attributes:
        pad: the id that fills up.
        left: whether it goes before the tokens, not after them.
        end_tokens: special tokens at the end, which a sequence that is cut keeps.
    """

    pad: int = 0
    left: bool = False
    end_tokens: int = 1


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        input_ids: token ids, int64, (batch, length).
        attention_mask: 1 for tokens, 0 for padding, int64, (batch, length).
        rows: which sentences these are, (batch,).
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    rows: np.ndarray


def save_inputs(
    file: Path, token_ids: list[list[int]], samples: list[str], labels: list[int], padding: Padding = Padding()
) -> None:
    """Writes tokenised sentences once for all workers: none of them needs a tokenizer or a data set."""
    content = io.BytesIO()
    np.savez(
        content,
        ids=np.concatenate([np.array(ids, dtype=np.int64) for ids in token_ids]),
        offsets=np.cumsum([0, *map(len, token_ids)]),
        samples=np.array(samples),
        labels=np.array(labels, dtype=np.int64),
        padding=np.array([padding.pad, padding.left, padding.end_tokens], dtype=np.int64),
    )
    paths.write_atomic(file, content.getvalue())


def load_inputs(file: Path) -> tuple[list[list[int]], list[str], list[int]]:
    """(token ids per sentence, sample ids, labels) as `save_inputs` got them."""
    with np.load(file, allow_pickle=False) as stored:
        ids = stored["ids"].tolist()
        token_ids = [ids[a:b] for a, b in pairwise(stored["offsets"].tolist())]
        return token_ids, stored["samples"].tolist(), stored["labels"].tolist()


def load_padding(file: Path) -> Padding:
    """The padding that `save_inputs` got; that of the first family in a file from before there were others."""
    with np.load(file, allow_pickle=False) as stored:
        pad, left, end_tokens = stored["padding"].tolist() if "padding" in stored else (0, 0, 1)
        return Padding(pad, bool(left), end_tokens)


def sample_order(n: int, samples_per_cycle: int, seed: int) -> list[int]:
    """Which sentences a cycle goes over, in one order for every cell: shuffled once, begun again when too few."""
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return [order[i % n] for i in range(samples_per_cycle)]


def cycle_samples(samples_per_cycle: int, batches_per_cycle: int | None, batch_size: int) -> int:
    """How many sentences a cell of this batch size goes over in a cycle: all, or as many as that many batches hold."""
    return min(samples_per_cycle, (batches_per_cycle or samples_per_cycle) * batch_size)


def make_batches(
    token_ids: list[list[int]],
    batch_size: int,
    length_policy: str,
    samples_per_cycle: int,
    seed: int,
    padding: Padding = Padding(),
) -> list[Batch]:
    """Cuts one cycle's sentences into batches; the last one is smaller when the size does not divide them.

    Args:
        token_ids: per sentence, with the special tokens of its model.
        batch_size: sentences per batch.
        length_policy: "fixed-N" pads or cuts to N tokens; "longest" pads to the longest of each batch, of 512 at most.
        samples_per_cycle: sentences per cycle.
        seed: of the order.
        padding: how sequences are filled up and cut.
    """
    order = sample_order(len(token_ids), samples_per_cycle, seed)
    return [
        pad([token_ids[row] for row in order[i : i + batch_size]], order[i : i + batch_size], length_policy, padding)
        for i in range(0, len(order), batch_size)
    ]


def pad(token_ids: list[list[int]], rows: list[int], length_policy: str, padding: Padding) -> Batch:
    """One batch of these sentences; arguments as of `make_batches`."""
    length = most_tokens(length_policy)
    if length_policy == "longest":
        length = min(length, max(map(len, token_ids)))
    input_ids = np.full((len(token_ids), length), padding.pad, dtype=np.int64)  # (B, L)
    mask = np.zeros_like(input_ids)
    for i, ids in enumerate(token_ids):
        end = padding.end_tokens
        kept = ids if len(ids) <= length else [*ids[: length - end], *ids[len(ids) - end :]]
        place = slice(length - len(kept), length) if padding.left else slice(len(kept))
        input_ids[i, place], mask[i, place] = kept, 1
    return Batch(input_ids, mask, np.array(rows))


def most_tokens(length_policy: str) -> int:
    """How many tokens of a sentence the model is given at most; the rest is cut."""
    return MOST_TOKENS if length_policy == "longest" else int(length_policy[6:])


def truncated_shares(
    token_ids: list[list[int]], length_policy: str, samples_per_cycle: int, seed: int
) -> tuple[float, float]:
    """What the length policy cuts of a cycle: the share of its distinct sentences, and the share of their tokens.

    A classifier that sees a part of a sentence does less work, and another task. Arguments as of `make_batches`.
    """
    lengths = np.array([len(token_ids[row]) for row in {*sample_order(len(token_ids), samples_per_cycle, seed)}])
    beyond = np.maximum(lengths - most_tokens(length_policy), 0)
    return float((beyond > 0).mean()), float(beyond.sum() / lengths.sum())


def batches_sha256(batches: list[Batch]) -> str:
    """SHA-256 of all ids and masks with their shapes, in order."""
    parts = []
    for batch in batches:
        parts += [
            str(batch.input_ids.shape).encode(),
            batch.input_ids.tobytes(),
            batch.attention_mask.tobytes(),
        ]
    return paths.sha256_bytes(*parts)


def padding_share(batches: list[Batch]) -> float:
    """Share of positions that are padding: computed, but not useful."""
    used = sum(int(batch.attention_mask.sum()) for batch in batches)
    return 1 - used / sum(batch.attention_mask.size for batch in batches)
