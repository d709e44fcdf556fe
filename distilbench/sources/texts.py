"""Text: where it comes from, that it is the text it was before, and its manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.errors import DataError
from distilbench.sources import embedded, hub, revisions, rows
from distilbench.sources.labels import read_labels
from distilbench.sources.parameters import SourceParams
from distilbench.sources.rows import TEXT_COLUMNS

KNOWN = {  # what is known of a data set beyond its card, by name and configuration
    ("nyu-mll/glue", "sst2"): {
        "licence": (
            "GLUE names no single licence (its card: `license: other`); this study's requirements say MIT for SST-2; "
            "the sentences are quotations from film reviews"
        ),
        "citation": (
            "Socher, R. et al. (2013). Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank. "
            "EMNLP. Wang, A. et al. (2019). GLUE. ICLR."
        ),
    }
}

Places = list[tuple[str, dict[str, Any]]]  # rows, each with where it stands
MANIFEST_HASHES = ("content_sha256", "tokenizer_sha256")  # what must not change within a run


@dataclass(frozen=True)
class TextSet:
    """Labelled sentences.

    Attributes:
        samples: ids, unique.
        texts: the sentences, as the tokenizer gets them.
        labels: index into label_names, one per sentence.
        label_names: in the order of the data set.
        about: source, name, revision, licence and citation, for the manifest.
        first_seen: no lock had its hash yet, so it was compared with nothing.
    """

    samples: list[str]
    texts: list[str]
    labels: list[int]
    label_names: tuple[str, ...]
    about: dict[str, Any]
    first_seen: bool = False

    def content_sha256(self) -> str:
        """SHA-256 of the normalised content: label names, then `id TAB label TAB text` in order."""
        lines = (
            f"{i}\t{label}\t{text}\n".encode()
            for i, label, text in zip(self.samples, self.labels, self.texts, strict=True)
        )
        return paths.sha256_bytes("\t".join(self.label_names).encode() + b"\n", *lines)

    @property
    def key(self) -> str:
        """Names this text in a lock file."""
        return self.about["key"]


def load_texts(params: SourceParams) -> TextSet:
    """The study's sentences from `data_source`; the same content as at the first time, or an error.

    Raises:
        DataError: missing, malformed, or changed (both hashes are named).
        HubError: the hub cannot be used; the message has the ways out.
    """
    loaded = {"embedded": _from_package, "local": _from_file, "hub": _from_hub}[params.data_source](params)
    if not loaded.texts:
        raise DataError(f"{loaded.about['name']} holds no sentences")
    if twice := [sample for sample, count in Counter(loaded.samples).items() if count > 1]:
        raise DataError(f"{loaded.about['name']}: two sentences have the id {twice[0]!r}; ids must be unique")
    lock = revisions.local_lock() if params.data_source == "local" else revisions.shared_lock()
    found = {"sha256": loaded.content_sha256()}
    if loaded.about["revision"]:
        found["commit"] = loaded.about["revision"]
    return replace(loaded, first_seen=revisions.enforce(loaded.key, found, lock))


def _from_package(params: SourceParams) -> TextSet:
    """The validation split of the embedded sentences."""
    found = [row for row in embedded.movie_sentences() if row[3] == "validation"]
    return TextSet(*_columns((i, text, label) for i, text, label, _ in found), embedded.LABELS, about_package())


def about_package() -> dict[str, Any]:
    """What the embedded sentences are, for the manifest."""
    return {
        "key": f"data embedded {embedded.VADER.requirement} movie validation",
        "source": "embedded",
        "name": f"{embedded.TEXT_NAME}, validation split",
        "revision": None,
        "package": embedded.VADER.requirement,
        "package_sha256": embedded.VADER.sha256,
        "licence": "MIT (vaderSentiment: compilation and ratings); the sentences are quotations from film reviews",
        "citation": (
            "Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of "
            "Social Media Text. ICWSM-14. Sentences: Pang, B. & Lee, L. (2005). Seeing stars. ACL."
        ),
    }


def _from_hub(params: SourceParams) -> TextSet:
    """One split of a data set on the hub, by default GLUE/SST-2 validation (872 sentences)."""
    asked = (params.dataset_name, params.dataset_config, params.dataset_split, params.dataset_revision)
    key, found = hub.dataset_key(*asked), hub.fetch_dataset(*asked)
    texts, labels, names = _read(key, found.table.rows, found.table.label_names)
    columns = _columns(zip(_ids(found.table.rows), texts, labels, strict=True))
    return TextSet(*columns, names, about_split(params, found))


def about_split(params: SourceParams, found: hub.Split) -> dict[str, Any]:
    """What a split on the hub is, for the manifest."""
    asked = (params.dataset_name, params.dataset_config, params.dataset_split, params.dataset_revision)
    return {
        "key": hub.dataset_key(*asked),
        "source": "hub",
        "name": f"{params.dataset_name} {params.dataset_config}, {params.dataset_split} split",
        "revision": found.commit,
        "licence": found.licence,
        "citation": found.citation,
    } | KNOWN.get(asked[:2], {})


def _ids(found: Places) -> list[str]:
    """The data set's own ids where each row has a usable one of its own, else the rows' numbers."""
    own = [str(row["idx"]) for _, row in found if "idx" in row]
    fine = len(set(own)) == len(found) and not any(map(rows.unusable, own))
    return own if fine else [str(i) for i in range(len(found))]


def _read(what: str, found: Places, declared: tuple[str, ...] = ()) -> tuple[list[str], list[int], tuple[str, ...]]:
    """Sentences, labels and the labels' names of rows from whichever source; no row is left out.

    Raises:
        DataError: there is no row, or one is not a sentence with a label; its place is named.
    """
    if not found:
        raise DataError(f"{what} is empty: it needs the columns 'text' and 'label', and a sentence per row")
    column = text_column(found[0][1], what)
    texts = [sentence(f"{what}, {place}", row, column) for place, row in found]
    labels, names = read_labels([row.get("label") for _, row in found], what, [place for place, _ in found], declared)
    return texts, labels, names


def _columns(triples: Iterable[tuple[str, str, int]]) -> tuple[list[str], list[str], list[int]]:
    samples, texts, labels = [], [], []
    for sample, text, label in triples:
        samples.append(sample)
        texts.append(text.strip())
        labels.append(label)
    return samples, texts, labels


def text_column(columns: Iterable[str], name: Any) -> str:
    """Which column has the sentences: the one of `TEXT_COLUMNS` that is there, beside one with labels."""
    columns = list(columns)
    found = _one_text_column(columns, name)
    if not found or "label" not in columns:
        raise DataError(f"{name}: needs a column 'label' and one of {TEXT_COLUMNS}; it has {sorted(columns)}")
    return found


def _one_text_column(columns: Iterable[str], name: Any) -> str | None:
    found = [column for column in columns if column in TEXT_COLUMNS]
    if len(found) > 1:
        raise DataError(f"{name}: has both of {TEXT_COLUMNS}; leave the one with the sentences, rename the other")
    return found[0] if found else None


# ------------------------------------------------------------------ local files


def _from_file(params: SourceParams) -> TextSet:
    """A csv, tsv or jsonl file with `text` (or `sentence`) and `label` (a name, or 0 and 1); see `rows`."""
    file = paths.find_input(params.data_path)
    found = rows.read(file)
    texts, indices, names = _read(str(file), [(f"line {line}", row) for line, row in found])
    about = about_file(file) | {"sentences_trimmed": sum(text != text.strip() for text in texts)}
    samples = (f"{file.stem}-{line}" for line, _ in found)
    return TextSet(*_columns(zip(samples, texts, indices, strict=True)), names, about)


def about_file(file: Path) -> dict[str, Any]:
    """What a local file is, for the manifest."""
    return {
        "key": f"data local {file}",
        "source": "local",
        "name": file.name,
        "revision": None,
        "licence": "as its owner says",
        "citation": "none known: a local file",
    }


def sentence(where: str, row: dict[str, Any], column: str) -> str:
    """The sentence of a row, as it stands.

    Raises:
        DataError: there is none, or no tokenizer can take it.
    """
    if column not in row:
        raise DataError(f"{where}: has no {column!r}; it has {sorted(row)}")
    _one_text_column(row, where)  # a line of JSON may have other keys than the first
    text = row[column]
    if not isinstance(text, str):
        raise DataError(f"{where}: the sentence is {_shown(text)}, not text: write it in quotation marks")
    if not text.strip():
        raise DataError(f"{where}: the sentence is empty")
    if why := rows.unusable(text):
        raise DataError(f"{where}: the sentence cannot be used: {why}")
    return text


def _shown(value: Any) -> str:
    """A value as its file has it, short enough to be read."""
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= 40 else f"{text[:40]}… ({len(text):,} characters)"


# ------------------------------------------------------------------ tokens and manifest


def tokenise(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids per sentence with [CLS] and [SEP], in one batched call; neither cut nor padded: batches are."""
    return tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]


def tokenizer_sha256(tokenizer: Any) -> str:
    """SHA-256 of what decides the tokens: the fast tokenizer's state, without padding and truncation."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["padding"] = state["truncation"] = None
    return paths.sha256_bytes(paths.canonical_json(state))


def manifest(texts: TextSet, tokenizer: Any) -> dict[str, Any]:
    """What the text is: source, revision, licence, citation, rows, labels, lengths, hashes."""
    lengths = np.array([len(ids) for ids in tokenise(tokenizer, texts.texts)])
    counts = Counter(texts.labels)
    return {
        "schema_version": 1,
        **texts.about,
        "rows": len(texts.texts),
        "labels": {name: counts.get(index, 0) for index, name in enumerate(texts.label_names)},
        "tokens": {
            "mean": round(float(lengths.mean()), 2),
            **{f"p{p}": int(np.percentile(lengths, p, method="higher")) for p in (50, 90, 95, 99)},
            "min": int(lengths.min()),
            "max": int(lengths.max()),
            "share_over": {str(n): round(float((lengths > n).mean()), 4) for n in (32, 64, 128, 512)},
        },
        "tokenizer": type(tokenizer).__name__,
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "content_sha256": texts.content_sha256(),
    }
