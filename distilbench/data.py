"""Text: where it comes from, that it is the text it was before, and its manifest."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distilbench import embedded, hub, paths, revisions
from distilbench.errors import DataError
from distilbench.params import DistilbertParams

TEXT_COLUMNS = ("text", "sentence")
SST2_LABELS = ("negative", "positive")


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


def load_texts(params: DistilbertParams) -> TextSet:
    """The study's sentences from `data_source`; the same content as at the first time, or an error.

    Raises:
        DataError: missing, malformed, or changed (both hashes are named).
        HubError: the hub cannot be used; the message has the ways out.
    """
    loaded = {"embedded": _from_package, "local": _from_file, "hub": _from_hub}[params.data_source](params)
    if not loaded.texts:
        raise DataError(f"{loaded.about['name']} holds no sentences")
    lock = revisions.local_lock() if params.data_source == "local" else revisions.shared_lock()
    found = {"sha256": loaded.content_sha256()}
    if loaded.about["revision"]:
        found["commit"] = loaded.about["revision"]
    return replace(loaded, first_seen=revisions.enforce(loaded.key, found, lock))


def _from_package(params: DistilbertParams) -> TextSet:
    """The validation split of the embedded sentences."""
    rows = [row for row in embedded.movie_sentences() if row[3] == "validation"]
    about = {
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
    return TextSet(*_columns((i, text, label) for i, text, label, _ in rows), embedded.LABELS, about)


def _from_hub(params: DistilbertParams) -> TextSet:
    """One split of a data set on the hub, by default GLUE/SST-2 validation (872 sentences)."""
    key = hub.dataset_key(params.dataset_name, params.dataset_config, params.dataset_split, params.dataset_revision)
    loaded, commit = hub.fetch_dataset(
        params.dataset_name, params.dataset_config, params.dataset_split, params.dataset_revision
    )
    column = _text_column(loaded.column_names, params.dataset_name)
    if min(loaded["label"], default=0) < 0:
        raise DataError(f"{key}: its labels are withheld (-1), as of GLUE's test splits; use validation or train")
    names = tuple(getattr(loaded.features["label"], "names", None) or SST2_LABELS)
    samples = [str(i) for i in loaded["idx"]] if "idx" in loaded.column_names else map(str, range(len(loaded)))
    about = {
        "key": key,
        "source": "hub",
        "name": f"{params.dataset_name} {params.dataset_config}, {params.dataset_split} split",
        "revision": commit,
        "licence": (
            "GLUE names no single licence (its card: `license: other`); this study's requirements say MIT for SST-2; "
            "the sentences are quotations from film reviews"
        ),
        "citation": (
            "Socher, R. et al. (2013). Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank. "
            "EMNLP. Wang, A. et al. (2019). GLUE. ICLR."
        ),
    }
    return TextSet(*_columns(zip(samples, loaded[column], loaded["label"], strict=True)), names, about)


def _columns(rows: Iterable[tuple[str, str, int]]) -> tuple[list[str], list[str], list[int]]:
    samples, texts, labels = [], [], []
    for sample, text, label in rows:
        samples.append(sample)
        texts.append(text.strip())
        labels.append(int(label))
    return samples, texts, labels


def _text_column(columns: Iterable[str], name: Any) -> str:
    for column in TEXT_COLUMNS:
        if column in columns and "label" in columns:
            return column
    raise DataError(f"{name}: needs a column 'label' and one of {TEXT_COLUMNS}; it has {sorted(columns)}")


# ------------------------------------------------------------------ local files


def _from_file(params: DistilbertParams) -> TextSet:
    """A csv, tsv or jsonl file with `text` (or `sentence`) and `label` (a name, or 0 and 1)."""
    file = paths.find_input(params.data_path)
    rows = _read_rows(file)
    if not rows:
        raise DataError(f"{file} is empty: it needs a header with 'text' and 'label', then one sentence per line")
    column = _text_column(rows[0][1], file)
    labels = ["" if row.get("label") is None else str(row["label"]) for _, row in rows]
    names = _label_names(labels, file, [number for number, _ in rows])
    triples = []
    for number, row in rows:
        text = row.get(column)
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{file}, line {number}: the sentence is empty")
        label = str(row["label"]).strip().casefold()
        triples.append((f"{file.stem}-{number}", text, int(label) if label.isdigit() else names.index(label)))
    about = {
        "key": f"data local {file}",
        "source": "local",
        "name": file.name,
        "revision": None,
        "licence": "as its owner says",
        "citation": "none known: a local file",
    }
    return TextSet(*_columns(triples), names, about)


def _read_rows(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Rows with their line numbers."""
    readers = {".csv": _read_table, ".tsv": _read_table, ".jsonl": _read_jsonl}
    if file.suffix not in readers:
        raise DataError(f"{file}: allowed are {', '.join(readers)}, not {file.suffix or 'a file without an ending'!r}")
    try:
        return readers[file.suffix](file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None


def _read_table(file: Path) -> list[tuple[int, dict[str, Any]]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:  # -sig: spreadsheets put a byte-order mark first
        reader = csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
        rows = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{file}, line {reader.line_num}: has another number of columns than the header")
                rows.append((reader.line_num, row))
        except csv.Error as error:
            raise DataError(f"{file}, line {reader.line_num + 1}: {error}") from None  # counted up to the last good row
        return rows


def _read_jsonl(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{file}, line {number}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: not a JSON object")
        rows.append((number, row))
    return rows


def _label_names(labels: list[str], file: Path, numbers: list[int]) -> tuple[str, ...]:
    """Names in the file, sorted; whole numbers 0 and 1 are negative and positive, as in SST-2."""
    for label, number in zip(labels, numbers, strict=True):
        if not label.strip():
            raise DataError(f"{file}, line {number}: the label is empty")
    distinct = {label.strip().casefold() for label in labels}
    if distinct <= {"0", "1"}:
        return SST2_LABELS
    if numeric := sorted(label for label in distinct if label.lstrip("-").isdigit()):
        raise DataError(f"{file}: labels must be names, or 0 and 1; it has {', '.join(numeric)}")
    if len(distinct) < 2:
        raise DataError(f"{file}: all labels are {distinct.pop()!r}; a classifier needs at least two")
    return tuple(sorted(distinct))


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
