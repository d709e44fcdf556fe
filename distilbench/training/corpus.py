"""The rows of a training: train, validation and test, tokenised once for all processes.

Validation is carved from the training rows by a hash of the text: equal texts fall on one side, and the test rows stay
closed until the end.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from distilbench import paths
from distilbench.errors import DataError
from distilbench.sources import families, four_sources, revisions, texts, tokenizers
from distilbench.sources.batches import Padding, load_inputs, load_padding, save_inputs
from distilbench.sources.embedded_text import normalise
from distilbench.sources.texts import TextSet
from distilbench.training.params import TrainingParams

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Prepared:
    """What is on disk for all processes.

    Attributes:
        folder: with a file of token ids per split, and the tokenizer.
        label_names: in the order of the logits.
        vocab_size: rows that the tokenizer needs.
        data: what the text is, with a hash and the rows of each split.
    """

    folder: str
    label_names: list[str]
    vocab_size: int
    data: dict[str, Any]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's folder."""
        return Path(self.folder) / "tokenizer"

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        file = Path(self.folder) / f"{split}.npz"
        token_ids, samples, labels = load_inputs(file)
        return Rows(token_ids, labels, samples, load_padding(file))


class Rows(Dataset):
    """Tokenised rows, as a torch data set.

    A negative index is a row that only fills a batch up, so that all processes take as many steps: it weighs nothing.
    """

    def __init__(
        self, token_ids: list[list[int]], labels: list[int], samples: list[str], padding: Padding, most: int = 512
    ) -> None:
        self.labels, self.samples, self.padding = labels, samples, padding
        self.token_ids = [cut(ids, most, padding.end_tokens) for ids in token_ids]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[list[int], int, float]:
        """(token ids, label, weight)."""
        row, weight = (index, 1.0) if index >= 0 else (~index, 0.0)
        return self.token_ids[row], self.labels[row], weight

    def at_most(self, tokens: int) -> Rows:
        """The same rows, none longer than so many tokens."""
        return Rows(self.token_ids, self.labels, self.samples, self.padding, tokens)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(ids) for ids in self.token_ids]

    def collate(self, found: list[tuple[list[int], int, float]]) -> dict[str, torch.Tensor]:
        """One batch, padded to its own longest row: input_ids and attention_mask (B, L), labels and weights (B,)."""
        longest = max(len(ids) for ids, _, _ in found)
        input_ids = torch.full((len(found), longest), self.padding.pad)
        mask = torch.zeros_like(input_ids)
        for i, (ids, _, _) in enumerate(found):
            place = slice(longest - len(ids), longest) if self.padding.left else slice(len(ids))
            input_ids[i, place], mask[i, place] = torch.tensor(ids), 1
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "labels": torch.tensor([label for _, label, _ in found]),
            "weights": torch.tensor([weight for _, _, weight in found]),
        }


def cut(ids: list[int], most: int, end_tokens: int) -> list[int]:
    """At most so many tokens; those that end a sequence stay."""
    return ids if len(ids) <= most else [*ids[: most - end_tokens], *ids[len(ids) - end_tokens :]]


def prepare(params: TrainingParams, folder: Path) -> Prepared:
    """Reads, checks and tokenises all splits into the folder; what is there already is of the same text, or an error.

    Raises:
        DataError: a split is empty, has a class that training has not, or the training rows have one class only.
    """
    splits = load_splits(params)
    tokenizer = tokenizers.load_tokenizer(params)
    padding = tokenizers.padding_of(tokenizer, families.named(params.model_family))
    names, about = splits["train"].label_names, {}
    for name, text in splits.items():
        _require_usable(name, text, names)
        save_inputs(folder / f"{name}.npz", texts.tokenise(tokenizer, text.texts), text.samples, text.labels, padding)
        counted = Counter(text.labels)
        about[name] = {
            "name": text.about["name"], "rows": len(text.texts), "sha256": text.content_sha256(),
            "labels": {label: counted[i] for i, label in enumerate(names)},
        }  # fmt: skip
    tokenizer.save_pretrained(folder / "tokenizer")
    source = {key: splits["train"].about.get(key) for key in ("source", "revision", "licence", "citation")}
    data = source | {
        "name": re.sub(r", \w+ split$", "", splits["train"].about["name"]),
        "splits": about,
        "content_sha256": paths.sha256_bytes(*(about[name]["sha256"].encode() for name in SPLITS)),
        "tokenizer_sha256": texts.tokenizer_sha256(tokenizer),
    }
    return Prepared(str(folder), list(names), tokenizers.table_rows(tokenizer), data)


def load_splits(params: TrainingParams) -> dict[str, TextSet]:
    """Train, validation and test; the same content as at the first time, or an error."""
    if params.data_source == "embedded":
        splits = {split: _embedded(split) for split in SPLITS}
    else:
        whole = texts.load_texts(params)
        test = texts.load_texts(
            params.model_copy(update={"dataset_split": params.test_split, "data_path": params.test_path})
        )
        splits = carve(whole, params.validation_share) | {"test": _with_names_of(whole, test)}
    if params.train_rows:
        splits["train"] = _drawn(splits["train"], params.train_rows, params.seed)
    return splits


def _embedded(split: str) -> TextSet:
    """A split of the sentences from four sources; every tenth by hash is for validation, another for the test."""
    text = four_sources.TEXT
    found = [row for row in text.sentences() if row[3] == split]
    about = {
        "key": f"data embedded {text.package.requirement} {text.short} {split}",
        "source": "embedded", "name": f"{text.name}, {split} split", "revision": None,
        "licence": text.licence, "citation": text.citation,
    }  # fmt: skip
    ids, sentences, labels, _ = zip(*found, strict=True)
    loaded = TextSet(list(ids), list(sentences), list(labels), text.labels, about)
    revisions.enforce(loaded.key, {"sha256": loaded.content_sha256()}, revisions.shared_lock())
    return loaded


def carve(whole: TextSet, share: float) -> dict[str, TextSet]:
    """Train and validation: a row is of the latter where a hash of its normalised text says so.

    Args:
        share: of the rows, about.
    """
    held = [_bucket(text) < share for text in whole.texts]
    return {
        name: _chosen(whole, [i for i, out in enumerate(held) if out == (name == "validation")])
        for name in ("train", "validation")
    }


def _bucket(text: str) -> float:
    """A number from 0 to 1 that is the same for texts that differ only in case and punctuation."""
    return int.from_bytes(hashlib.sha256(normalise(text).encode()).digest()[:8]) / 2**64


def _chosen(text: TextSet, rows: list[int]) -> TextSet:
    columns = {name: [getattr(text, name)[i] for i in rows] for name in ("samples", "texts", "labels")}
    return replace(text, **columns)


def _drawn(text: TextSet, count: int, seed: int) -> TextSet:
    """So many rows, drawn with a seed."""
    if count >= len(text.texts):
        return text
    return _chosen(text, sorted(random.Random(seed).sample(range(len(text.texts)), count)))


def _with_names_of(train: TextSet, test: TextSet) -> TextSet:
    """The test rows with labels numbered as in training: matched by name, never by number.

    Raises:
        DataError: it has a class that training has not.
    """
    known = {name: i for i, name in enumerate(train.label_names)}
    if unknown := [name for name in test.label_names if name not in known]:
        raise DataError(
            f"{test.about['name']} has the class {unknown[0]!r}; {train.about['name']} has {', '.join(known)}"
        )
    labels = [known[test.label_names[label]] for label in test.labels]
    return replace(test, labels=labels, label_names=train.label_names)


def _require_usable(name: str, text: TextSet, names: tuple[str, ...]) -> None:
    if not text.texts:
        raise DataError(f"{text.about['name']}: no row is left for {name}; more rows, or another validation_share")
    if name == "train" and len(set(text.labels)) < 2:
        only = names[text.labels[0]]
        raise DataError(
            f"{text.about['name']}: all rows to train on are {only!r}; a classifier needs two classes or more"
        )
