"""Text: where it comes from, that it is the text it was before, and its manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distilbench import embedded, hub, paths, revisions, rows
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
    if twice := [sample for sample, count in Counter(loaded.samples).items() if count > 1]:
        raise DataError(f"{loaded.about['name']}: two sentences have the id {twice[0]!r}; ids must be unique")
    lock = revisions.local_lock() if params.data_source == "local" else revisions.shared_lock()
    found = {"sha256": loaded.content_sha256()}
    if loaded.about["revision"]:
        found["commit"] = loaded.about["revision"]
    return replace(loaded, first_seen=revisions.enforce(loaded.key, found, lock))


def _from_package(params: DistilbertParams) -> TextSet:
    """The validation split of the embedded sentences."""
    found = [row for row in embedded.movie_sentences() if row[3] == "validation"]
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
    return TextSet(*_columns((i, text, label) for i, text, label, _ in found), embedded.LABELS, about)


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


def _columns(triples: Iterable[tuple[str, str, int]]) -> tuple[list[str], list[str], list[int]]:
    samples, texts, labels = [], [], []
    for sample, text, label in triples:
        samples.append(sample)
        texts.append(text.strip())
        labels.append(int(label))
    return samples, texts, labels


def _text_column(columns: Iterable[str], name: Any) -> str:
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


def _from_file(params: DistilbertParams) -> TextSet:
    """A csv, tsv or jsonl file with `text` (or `sentence`) and `label` (a name, or 0 and 1); see `rows`."""
    file = paths.find_input(params.data_path)
    if rows.unusable(str(file)):  # its ids and its record carry the name
        raise DataError(f"{str(file)!r}: this name is not UTF-8; rename the file")
    found = rows.read(file)
    if not found:
        raise DataError(f"{file} is empty: it needs a header with 'text' and 'label', then one sentence per line")
    column = _text_column(found[0][1], file)
    texts = [_sentence(f"{file}, line {line}", row, column) for line, row in found]
    labels = [_label(f"{file}, line {line}", row) for line, row in found]
    names, indices = _label_names(labels, file)
    about = {
        "key": f"data local {file}",
        "source": "local",
        "name": file.name,
        "revision": None,
        "licence": "as its owner says",
        "citation": "none known: a local file",
        "sentences_trimmed": sum(text != text.strip() for text in texts),
    }
    samples = (f"{file.stem}-{line}" for line, _ in found)
    return TextSet(*_columns(zip(samples, texts, indices, strict=True)), names, about)


def _sentence(where: str, row: dict[str, Any], column: str) -> str:
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


def _label(where: str, row: dict[str, Any]) -> str:
    """The label's name without blanks around it, in small letters."""
    label = row.get("label")
    if label is None or not str(label).strip():
        raise DataError(f"{where}: the label is empty")
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise DataError(f"{where}: the label is {_shown(label)}; labels must be names, or 0 and 1")
    if why := rows.unusable(str(label)):
        raise DataError(f"{where}: the label cannot be used: {why}")
    return str(label).strip().casefold()


def _label_names(labels: list[str], file: Path) -> tuple[tuple[str, ...], list[int]]:
    """Names in the file, sorted, and the index of each label; 0 and 1 are negative and positive, as in SST-2."""
    distinct = set(labels)
    if distinct <= {"0", "1"}:
        return SST2_LABELS, [int(label) for label in labels]
    if numeric := sorted(filter(_is_number, distinct)):
        told = ", ".join(map(_shown, numeric[:10])) + (", …" if len(numeric) > 10 else "")
        raise DataError(f"{file}: labels must be names, or 0 and 1; it has {told}")
    if len(distinct) < 2:
        raise DataError(f"{file}: all labels are {distinct.pop()!r}; a classifier needs at least two")
    names = tuple(sorted(distinct))
    return names, [names.index(label) for label in labels]


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value as its file has it, short enough to be read."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}… ({len(text):,} characters)"


# ------------------------------------------------------------------ tokens and manifest


def tokenise(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids per sentence with [CLS] and [SEP], in one batched call; cut at the model's 512, never padded."""
    return tokenizer(texts, truncation=True, max_length=512, padding=False)["input_ids"]


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
