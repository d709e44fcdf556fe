"""Sentences with labels one by one, from any source: what `texts` loads whole, for data of any size.

Damaged rows come among the others, each with its place: who reads decides whether one ends the reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distilbench import paths
from distilbench.errors import DataError
from distilbench.sources import embedded, hub, texts
from distilbench.sources.labels import SST2, read_label
from distilbench.sources.parameters import SourceParams
from distilbench.sources.row_stream import Damaged, Found, damaged, stream


@dataclass(frozen=True)
class Row:
    """One sentence.

    Attributes:
        number: of the row in its data, from 1; damaged rows have numbers, too.
        text: as the tokenizer gets it.
        label: its name, whatever its case.
    """

    number: int
    text: str
    label: str


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Attributes:
        about: source, name, revision, licence and citation, for the manifest.
        found: the rows as they stand, once.
        declared: names of the labels where the source lists them; then numbers are indices into these.
    """

    about: dict[str, Any]
    found: Iterable[Found]
    declared: tuple[str, ...] = ()


def source_of(params: SourceParams, labels: tuple[str, ...] = ()) -> Source:
    """The study's rows from `data_source`; nothing of a local file is read yet.

    Args:
        labels: the names that labels may have, where they are known.

    Raises:
        DataError: there is no such file.
        HubError: the hub cannot be used; the message has the ways out.
    """
    return {"embedded": _package, "local": _file, "hub": _split}[params.data_source](params, labels)


def _package(params: SourceParams, labels: tuple[str, ...]) -> Source:
    text = embedded.TASKS[params.embedded_task].text
    kept = (row for row in text.sentences() if row[3] == "validation")
    found = ((f"sentence {i}", {"text": sentence, "label": label}) for i, sentence, label, _ in kept)
    return Source(texts.about_package(params), found, text.labels)


def _file(params: SourceParams, labels: tuple[str, ...]) -> Source:
    file = paths.find_input(params.data_path)
    return Source(texts.about_file(file), stream(file, (*labels, *SST2)))


def _split(params: SourceParams, labels: tuple[str, ...]) -> Source:
    asked = (params.dataset_name, params.dataset_config, params.dataset_split, params.dataset_revision)
    found = hub.stream_dataset(*asked)
    return Source(texts.about_split(params, found), found.table.rows, found.table.label_names)


def read(source: Source, labels: tuple[str, ...] = ()) -> Iterator[Row | Damaged]:
    """The rows of a source, checked one by one; the first row that has a column of sentences decides which one it is.

    Args:
        labels: the names that labels may have; none: any name.
    """
    what, known = source.about["name"], {label.strip().casefold() for label in labels}
    columns: tuple[str, str] | None = None  # of sentences and of labels
    for number, found in enumerate(source.found, 1):
        if isinstance(found, Damaged):
            yield found
            continue
        place, row = found
        try:
            columns = columns or texts.columns_of(row, f"{what}, {place}")
            text = texts.sentence(f"{what}, {place}", row, columns[0]).strip()
            label = read_label(row.get(columns[1]), what, place, source.declared)
            _require_known(label, labels, known)
        except DataError as error:
            yield damaged(place, error, what)
            continue
        yield Row(number, text, label)


def _require_known(label: str, labels: tuple[str, ...], known: set[str]) -> None:
    if known and label not in known:
        raise DataError(f"the label {label!r:.60} is none of the model's: {', '.join(labels)}")
