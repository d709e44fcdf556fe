"""What a text that installs from the package registry is, and which of its sentences are in which split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from distilbench.sources.packages import Package

Sentence = tuple[str, str, int, str]  # id, text, index of its label, split


@dataclass(frozen=True)
class EmbeddedText:
    """Labelled sentences from a package.

    Attributes:
        name: for captions; it says what the text is.
        short: names it in a lock file.
        labels: the classes.
        package: what carries it.
        sentences: all of them, in a fixed order, without duplicates.
        licence, citation: for the manifest.
    """

    name: str
    short: str
    labels: tuple[str, ...]
    package: Package
    sentences: Callable[[], list[Sentence]]
    licence: str
    citation: str


def normalise(text: str) -> str:
    """Lower-cased letters and digits only: what duplicates are found by and the split is hashed on."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def split_of(text: str) -> str:
    """`train` (80 %), `validation` or `test` (10 % each): a pure function of the normalised text."""
    bucket = int.from_bytes(hashlib.sha256(normalise(text).encode()).digest()[:8]) / 2**64
    return "validation" if bucket < 0.1 else "test" if bucket < 0.2 else "train"
