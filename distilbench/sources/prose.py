"""Running text for decoders: what keys and values are calibrated on, and what prompts are cut from.

WikiText-2 is what others publish perplexities of; its training split is for calibrating, its test split for measuring.
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

TextSource = Literal["auto", "wikitext", "editorials", "file"]
TEXTS = "auto: WikiText-2 where the hub's cache has it, else editorials; wikitext, editorials, or file"
WIKITEXT, WIKITEXT_CONFIG = "Salesforce/wikitext", "wikitext-2-raw-v1"
WIKITEXT_FILE = "wikitext-2-raw-v1/{}-00000-of-00001.parquet"
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
        about: its source (hub, embedded, or local), and licence and citation, or the file.
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
        source: one of `TEXTS`.
        path: of a text file, for source file; its first half is for calibrating.

    Raises:
        DataError: the file is missing, is no UTF-8, or is empty.
        HubError: hub or package registry cannot be reached, and the text is not in their caches.
    """
    if source == "file":
        return _of_file(path, calibrating)
    return wikitext(calibrating) if chosen(source) == "wikitext" else editorials(calibrating)


def chosen(source: TextSource) -> TextSource:
    """What auto stands for on this machine."""
    if source != "auto":
        return source
    from huggingface_hub import try_to_load_from_cache  # here: parameters are read without the hub

    files = [WIKITEXT_FILE.format(split) for split in ("train", "test")]
    found = [try_to_load_from_cache(WIKITEXT, file, repo_type="dataset") for file in files]
    return "wikitext" if all(isinstance(one, str) for one in found) else "editorials"


def wikitext(calibrating: bool) -> Prose:
    """WikiText-2 (raw), its rows joined by empty lines, as GPTQ and those after it join them."""
    from distilbench.sources import hub

    split = "train" if calibrating else "test"
    found = hub.fetch_dataset(WIKITEXT, WIKITEXT_CONFIG, split, "main")
    about = {
        "source": "hub",
        "licence": found.licence,
        "citation": found.citation,
        "repository": WIKITEXT,
        "commit": found.commit,
    }
    return Prose(
        f"{WIKITEXT} {WIKITEXT_CONFIG}, {split} split", "\n\n".join(row["text"] for _, row in found.table.rows), about
    )


def topics() -> Prose:
    """What this Python says in its help: technical English, which differs from version to version."""
    import platform
    from pydoc_data.topics import topics as texts

    version = platform.python_version()
    about = {
        "source": "embedded",
        "licence": "PSF",
        "citation": f"Python {version}, pydoc_data.topics",
        "python": version,
    }
    return Prose(f"help topics of Python {version}", "\n".join(texts[name].strip() for name in sorted(texts)), about)


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
    about = {"source": "embedded", "licence": licence, "citation": CITATION, "package": VADER.requirement}
    return Prose(f"sentences of newspaper editorials, {half}", "\n".join(lines), about)


def tiny_corpus() -> Prose:
    """The committed text: of another kind and another century than the editorials."""
    file = paths.repo_root() / "data" / "tiny_corpus.txt"
    about = {
        "source": "embedded",
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
    lines = lines[:half] if calibrating else lines[half:]
    name = f"{file.name}, {'first' if calibrating else 'second'} half of its lines"
    about = {"source": "local", "file": file.name, "file_sha256": paths.sha256_file(file)}
    return Prose(name, "\n".join(lines), about)
