"""Which of four sources a sentence is from: film reviews, product reviews, newspaper editorials, tweets.

The sentences of all ground-truth files of VADER (Hutto & Gilbert 2014; MIT), without their ratings. A source is told
apart partly by style and format (user names and links are masked in tweets), so it is called a source, and no topic.
"""

from __future__ import annotations

from distilbench.sources.embedded_text import EmbeddedText, Sentence, normalise, split_of
from distilbench.sources.movies import VADER, rated
from distilbench.sources.packages import fetch_package

#: By the name of a class, the file that holds its sentences; in this order a text that two files have is the first's.
CORPORA = {
    "movie review": "movieReviewSnippets",
    "product review": "amazonReviewSnippets",
    "newspaper editorial": "nytEditorialSnippets",
    "tweet": "tweets",
}


def sentences() -> list[Sentence]:
    """All sentences, file after file, without duplicates."""
    archive, rows, seen = fetch_package(VADER), [], set()
    for label, (name, corpus) in enumerate(CORPORA.items()):
        for number, _, text in rated(archive, corpus):
            if (key := normalise(text)) and key not in seen:
                seen.add(key)
                rows.append((f"{name.replace(' ', '-')}-{number}", text, label, split_of(text)))
    return rows


TEXT = EmbeddedText(
    name="sentences from four sources",
    short="sources",
    labels=tuple(CORPORA),
    package=VADER,
    sentences=lambda: sentences(),
    licence="MIT (vaderSentiment: compilation); the sentences are quotations from reviews, editorials and tweets",
    citation=(
        "Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of "
        "Social Media Text. ICWSM-14."
    ),
)
