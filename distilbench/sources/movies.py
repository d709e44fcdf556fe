"""The embedded movie-review sentences: the VADER ground truth (Hutto & Gilbert 2014; MIT), from the reviews of SST-2.

They are in the source archive of vaderSentiment, which is fetched and cached, and never committed here.
"""

from __future__ import annotations

import html
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from distilbench.errors import DataError
from distilbench.sources.embedded_text import EmbeddedText, Sentence, normalise, split_of
from distilbench.sources.packages import Package, fetch_package

LABELS = ("negative", "positive")
MIN_ABS_RATING = 0.5  # on the scale -4..4; sentences rated nearer to neutral have no clear label
VADER = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    binary=False,
    megabytes=2,
)


def sentences() -> list[Sentence]:
    """All labelled sentences, in file order, without duplicates."""
    rows, seen = [], set()
    for number, rating, text in rated(fetch_package(VADER), "movieReviewSnippets"):
        key = normalise(text)
        if abs(rating) < MIN_ABS_RATING or not key or key in seen:
            continue
        seen.add(key)
        rows.append((f"movie-{number}", text, int(rating > 0), split_of(text)))
    return rows


def rated(archive: Path, corpus: str) -> Iterator[tuple[str, float, str]]:
    """(id, mean rating, text) of each line of a ground-truth file: in an archive within the source archive.

    Args:
        corpus: the file's name before `_GroundTruth.txt`.

    Raises:
        DataError: the archive does not hold it.
    """
    try:
        with tarfile.open(archive) as outer:
            inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
            with tarfile.open(fileobj=io.BytesIO(inner.read())) as corpora:
                member = corpora.extractfile(f"hutto_ICWSM_2014/{corpus}_GroundTruth.txt")
                raw = member.read().decode("utf-8")
    except (tarfile.TarError, KeyError, OSError) as error:
        raise DataError(f"{archive} does not hold the sentences {corpus}: {error}") from error
    for line in raw.split("\n"):
        if line.strip():
            number, rating, text = line.rstrip("\r").split("\t", 2)
            yield number, float(rating), html.unescape(text).replace("''", '"').strip()


TEXT = EmbeddedText(
    name="movie-review sentences with VADER ratings",
    short="movie",
    labels=LABELS,
    package=VADER,
    sentences=lambda: sentences(),
    licence="MIT (vaderSentiment: compilation and ratings); the sentences are quotations from film reviews",
    citation=(
        "Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of "
        "Social Media Text. ICWSM-14. Sentences: Pang, B. & Lee, L. (2005). Seeing stars. ACL."
    ),
)
