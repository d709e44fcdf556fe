"""Text: where it comes from, that it is the text it was before, and its manifest."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distilbench import paths
from distilbench.errors import DataError
from distilbench.sources import embedded, hub, revisions, rows
from distilbench.sources.labels import read_labels
from distilbench.sources.parameters import SourceParams
from distilbench.sources.rows import LABEL_COLUMNS, TEXT_COLUMNS

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
MOST_SENTENCES = 16384  # a cycle goes over fewer; each process holds their tokens, which its peak memory shows
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
        numbers: by name of a label, how the data set itself numbers it; for the record, never to match by.
    """

    samples: list[str]
    texts: list[str]
    labels: list[int]
    label_names: tuple[str, ...]
    about: dict[str, Any]
    first_seen: bool = False
    numbers: dict[str, str] = field(default_factory=dict)

    def content_sha256(self) -> str:
        """SHA-256 of the normalised content: label names, then `id TAB label TAB text` in order."""
        lines = (
            f"{i}\t{label}\t{text}\n".encode()
            for i, label, text in zip(self.samples, self.labels, self.texts, strict=True)
        )
        return paths.sha256_bytes("\t".join(self.label_names).encode() + b"\n", *lines)

    def drawn(self, seed: int) -> TextSet:
        """The sentences that batches are made of: all, or `MOST_SENTENCES` of them, drawn with a seed."""
        if len(self.texts) <= MOST_SENTENCES:
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.texts)), MOST_SENTENCES))
        columns = {name: [getattr(self, name)[i] for i in chosen] for name in ("samples", "texts", "labels")}
        return replace(self, **columns)

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
    text = embedded.TASKS[params.embedded_task].text
    found = [row for row in text.sentences() if row[3] == "validation"]
    samples = _columns((i, sentence, label) for i, sentence, label, _ in found)
    return TextSet(*samples, text.labels, about_package(params))


def about_package(params: SourceParams) -> dict[str, Any]:
    """What the embedded sentences are, for the manifest."""
    text = embedded.TASKS[params.embedded_task].text
    return {
        "key": f"data embedded {text.package.requirement} {text.short} validation",
        "source": "embedded",
        "name": f"{text.name}, validation split",
        "revision": None,
        "package": text.package.requirement,
        "package_sha256": text.package.sha256,
        "licence": text.licence,
        "citation": text.citation,
    }


def _from_hub(params: SourceParams) -> TextSet:
    """One split of a data set on the hub, by default GLUE/SST-2 validation (872 sentences)."""
    asked = (params.dataset_name, params.dataset_config, params.dataset_split, params.dataset_revision)
    key, found = hub.dataset_key(*asked), hub.fetch_dataset(*asked)
    texts, labels, names = _read(key, found.table.rows, found.table.label_names)
    columns = _columns(zip(_ids(found.table.rows), texts, labels, strict=True))
    numbers = _numbers(key, found.table.rows, labels, names)
    return TextSet(*columns, names, about_split(params, found), numbers=numbers)


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
    column, label = columns_of(found[0][1], what)
    texts = [sentence(f"{what}, {place}", row, column) for place, row in found]
    labels, names = read_labels([row.get(label) for _, row in found], what, [place for place, _ in found], declared)
    return texts, labels, names


def _numbers(what: str, found: Places, labels: list[int], names: tuple[str, ...]) -> dict[str, str]:
    """By name of a label the number that the data set gives it (`label_id`); none where it has no such column.

    Raises:
        DataError: two labels have one number, or one has two: then one of the columns is wrong, and which is not known.
    """
    numbers, meant = {}, {}
    for (place, row), label in zip(found, labels, strict=True):
        if (given := row.get(rows.NUMBER_COLUMN)) in (None, ""):
            continue
        number, name = str(given).strip(), names[label]
        if numbers.setdefault(name, number) != number or meant.setdefault(number, name) != name:
            known = f"{name!r} is {numbers[name]} elsewhere, and {number} is {meant.get(number, name)!r}"
            raise DataError(f"{what}, {place}: label {name!r} has {rows.NUMBER_COLUMN} {number}, but {known}")
    return numbers


def _columns(triples: Iterable[tuple[str, str, int]]) -> tuple[list[str], list[str], list[int]]:
    samples, texts, labels = [], [], []
    for sample, text, label in triples:
        samples.append(sample)
        texts.append(text.strip())
        labels.append(label)
    return samples, texts, labels


def columns_of(columns: Iterable[str], name: Any) -> tuple[str, str]:
    """Which columns have the sentences and the labels: of `TEXT_COLUMNS` and `LABEL_COLUMNS` those that are there."""
    columns = list(columns)
    text, label = (_one_of(names, columns, name) for names in (TEXT_COLUMNS, LABEL_COLUMNS))
    if not text or not label:
        raise DataError(f"{name}: needs a column 'label' and one of {TEXT_COLUMNS}; it has {sorted(columns)}")
    return text, label


def _one_of(names: tuple[str, ...], columns: Iterable[str], name: Any) -> str | None:
    found = [column for column in columns if column in names]
    if len(found) > 1:
        what = "sentences" if names is TEXT_COLUMNS else "labels"
        raise DataError(f"{name}: has both of {names}; leave the one with the {what}, rename the other")
    return found[0] if found else None


# ------------------------------------------------------------------ local files


def _from_file(params: SourceParams) -> TextSet:
    """A csv, tsv or jsonl file with `text` (or `sentence`) and `label` (a name, or 0 and 1); see `rows`."""
    file = paths.find_input(params.data_path)
    found = rows.read(file)
    places = [(f"line {line}", row) for line, row in found]
    texts, indices, names = _read(str(file), places)
    about = about_file(file) | {"sentences_trimmed": sum(text != text.strip() for text in texts)}
    samples = (f"{file.stem}-{line}" for line, _ in found)
    numbers = _numbers(str(file), places, indices, names)
    return TextSet(*_columns(zip(samples, texts, indices, strict=True)), names, about, numbers=numbers)


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
    _one_of(TEXT_COLUMNS, row, where)  # a line of JSON may have other keys than the first
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


def _lengths(tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Tokens per sentence; piece by piece, since all ids of a large text would not fit into memory."""
    pieces = (texts[i : i + MOST_SENTENCES] for i in range(0, len(texts), MOST_SENTENCES))
    return np.array([len(ids) for piece in pieces for ids in tokenise(tokenizer, piece)])


def tokenizer_sha256(tokenizer: Any) -> str:
    """SHA-256 of what decides the tokens: the fast tokenizer's state, without padding and truncation."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["padding"] = state["truncation"] = None
    return paths.sha256_bytes(paths.canonical_json(state))


def manifest(texts: TextSet, tokenizer: Any) -> dict[str, Any]:
    """What the text is: source, revision, licence, citation, rows, labels, lengths, hashes.

    `drawn` is how many sentences batches are made of, where these are not all (`TextSet.drawn`).
    """
    lengths = _lengths(tokenizer, texts.texts)
    counts = Counter(texts.labels)
    return {
        "schema_version": 1,
        **texts.about,
        "rows": len(texts.texts),
        **({"drawn": MOST_SENTENCES} if len(texts.texts) > MOST_SENTENCES else {}),
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
