"""Running text for decoders: what keys and values are calibrated on, and what prompts are cut from.

The embedded one are sentences of newspaper editorials, from the ground truth of VADER (Hutto & Gilbert 2014; MIT), in
the order of their file. Two splits have no sentence in common, so that nothing is measured on what it was calibrated
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from distilbench import paths
from distilbench.errors import DataError
from distilbench.sources.embedded_text import normalise, split_of
from distilbench.sources.movies import VADER, rated
from distilbench.sources.packages import fetch_package

TextSource = Literal["editorials", "file"]
EDITORIALS = "nytEditorialSnippets"
CITATION = (
    "Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of "
    "Social Media Text. ICWSM-14."
)


@dataclass(frozen=True)
class Prose:
    """A running text.

    Attributes:
        name: for captions; it says what the text is.
        text: its lines, joined by newlines.
        about: licence and citation, or the file.
    """

    name: str
    text: str
    about: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Of the text in UTF-8."""
        return paths.sha256_bytes(self.text.encode())

    def manifest(self) -> dict[str, Any]:
        """What is recorded of it."""
        return {"name": self.name, "sha256": self.sha256, "characters": len(self.text), **self.about}


def load(source: TextSource, path: str = "", calibrating: bool = False) -> Prose:
    """The text for calibrating, or the one for measuring.

    Args:
        source: editorials, or a file.
        path: of a text file, for source file; its first half is for calibrating.

    Raises:
        DataError: the file is missing, is no UTF-8, or is empty.
        HubError: the package registry cannot be reached, and the editorials are not in the cache.
    """
    return _of_file(path, calibrating) if source == "file" else editorials(calibrating)


def editorials(calibrating: bool) -> Prose:
    """The sentences of the training split, or those of the other two; without duplicates."""
    lines, seen = [], set()
    for _, _, text in rated(fetch_package(VADER), EDITORIALS):
        if (key := normalise(text)) and key not in seen:
            seen.add(key)
            if (split_of(text) == "train") is calibrating:
                lines.append(text)
    half = "for calibration" if calibrating else "held out"
    licence = "MIT (vaderSentiment: compilation); the sentences are quotations from newspaper editorials"
    about = {"licence": licence, "citation": CITATION, "package": VADER.requirement}
    return Prose(f"sentences of newspaper editorials, {half}", "\n".join(lines), about)


def tiny_corpus() -> Prose:
    """The committed text: of another kind and another century than the editorials."""
    file = paths.repo_root() / "data" / "tiny_corpus.txt"
    about = {
        "licence": "public domain",
        "citation": "Carroll, L. (1865). Alice's Adventures in Wonderland.",
        "file": file.name,
    }
    return Prose(
        "Alice's Adventures in Wonderland, first chapters", file.read_text(encoding="utf-8").rstrip("\n"), about
    )


def _of_file(path: str, calibrating: bool) -> Prose:
    file = paths.find_input(path)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        raise DataError(f"{file} has {len(lines)} lines of text; at least 2 are needed, one half is for calibration")
    half = len(lines) // 2
    chosen = lines[:half] if calibrating else lines[half:]
    name = f"{file.name}, {'first' if calibrating else 'second'} half of its lines"
    return Prose(name, "\n".join(chosen), {"file": file.name, "file_sha256": paths.sha256_file(file)})
