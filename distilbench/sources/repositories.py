"""A data set's repository on the hub: what its card says, and which of its files make up a split.

`datasets` knows every layout of a repository, but looks for all files of all configurations. So it is shown a folder
with the names of the repository's files and nothing in them, to tell which ones a split needs, and reads parquet. Text
it would read with guesses, a sentence `NA` as missing; so csv, tsv and json are read as local files are, by `rows`.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from distilbench.errors import DataError
from distilbench.sources import rows

CARD = "README.md"
ONLY = "only"  # the split of a data set that has no other, whatever it is called
DESCRIPTIONS = (CARD, ".huggingface.yaml", "dataset_infos.json")  # files that describe a repository, not data
READABLE = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
PACKED = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}  # text only
NAMING = ("config_name", "data_files", "data_dir", "default", "description", "version")  # not how to read the files
COLUMNS = (*rows.TEXT_COLUMNS, *rows.LABEL_COLUMNS, rows.NUMBER_COLUMN, "idx")  # those whose values are looked at
STREAMED = 1024  # rows of a parquet file that are in memory at a time
NOT_STATED = "not stated"
UNFILLED = re.compile(r"(?ism)```\w*|<!--.*?-->|\[[^]]*needed\]|\*\*\w+:\*\*|^#.*?$")  # what a template leaves


@dataclass(frozen=True)
class Card:
    """What a repository says of itself.

    Attributes:
        what: the data set, for errors.
        metadata: the fields above the text.
        text: the text for people.
        infos: by configuration, what is said of it (`datasets.DatasetInfo`): features, licence, citation.
    """

    what: str
    metadata: dict[str, Any]
    text: str
    infos: dict[str, Any]

    def configuration(self, name: str) -> dict[str, Any]:
        """The entry of a configuration: its name, its files where they are listed, how to read them.

        Args:
            name: "default" is also the one that the card marks so, or the only one.

        Raises:
            DataError: there is none of this name; those that are there are listed.
        """
        entries = self._entries()
        if name == "default" and name not in entries:
            marked = [key for key, entry in entries.items() if entry.get("default")] or [*entries]
            name = marked[0] if len(marked) == 1 else name
        if name not in entries:
            raise DataError(f"{self.what} has no configuration {name!r}; it has: {', '.join(entries)}")
        return entries[name]

    def _entries(self) -> dict[str, dict[str, Any]]:
        listed = self.metadata.get("configs") or []
        if not isinstance(listed, list) or not all(isinstance(e, dict) and "config_name" in e for e in listed):
            raise DataError(f"the card of {self.what} is malformed: each of its `configs` needs a `config_name`")
        if not listed:
            listed = [{"config_name": name} for name in (self.infos if len(self.infos) == 1 else ["default"])]
        return {str(entry["config_name"]): entry for entry in listed}

    def licence(self, configuration: str) -> str:
        """The licence that the card names; never one that is known from elsewhere."""
        given = self.metadata.get("license")
        named = [*given] if isinstance(given, list) else [given]
        named += [self.metadata.get("license_name"), self.metadata.get("license_link")]
        said = ", ".join(str(part) for part in named if part) or getattr(self.infos.get(configuration), "license", "")
        return f"{_one_line(said)} (says its card)" if said else NOT_STATED

    def citation(self, configuration: str) -> str:
        """What the card asks to cite: its section on it, else its entry."""
        said = _one_line(UNFILLED.sub("", _section(self.text, "citation")))
        return said or _one_line(getattr(self.infos.get(configuration), "citation", "")) or NOT_STATED


def _section(text: str, title: str) -> str:
    """What stands below the first heading that begins with this word, up to the next heading of its level."""
    lines = iter(text.splitlines())
    heading = next((line for line in lines if re.match(rf"#+ *{title}", line, re.IGNORECASE)), "")
    level = len(heading) - len(heading.lstrip("#"))
    end = tuple("#" * higher + " " for higher in range(1, level + 1))
    return "\n".join(takewhile(lambda line: not line.startswith(end), lines))


def read_card(folder: Path, what: str) -> Card:
    """What the descriptions in a snapshot say; a repository without any says nothing.

    Raises:
        DataError: one of them is malformed.
    """
    import datasets
    from huggingface_hub import DatasetCard

    card, extra = folder / CARD, folder / ".huggingface.yaml"
    try:
        content = card.read_text(encoding="utf-8") if card.is_file() else "---\n{}\n---\n"
        read = DatasetCard(content)
        metadata = read.data.to_dict() | (yaml.safe_load(extra.read_text(encoding="utf-8")) if extra.is_file() else {})
        infos = datasets.info.DatasetInfosDict.from_directory(str(folder))
    except (ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
        raise DataError(f"the card of {what} is malformed: {_one_line(str(error))}") from error
    return Card(what, metadata, read.text, dict(infos))


def files_of_split(card: Card, entry: dict[str, Any], listed: Iterable[str], split: str) -> list[str]:
    """Which of a repository's files hold a split.

    Args:
        entry: the configuration, as `Card.configuration` gives it.
        listed: paths of all files of the repository.

    Raises:
        DataError: there is no such split, or it is kept in a form that is not read here.
    """
    what, listed = f"{card.what}, configuration {entry['config_name']}", {*map(str, listed)}
    if "://" in json.dumps(entry.get("data_files"), default=str):
        raise DataError(f"{what}: its files are kept elsewhere, which is not read: {entry['data_files']}")
    with _view(entry, dict.fromkeys(listed - {*DESCRIPTIONS})) as view:
        splits = _splits(view, what)
    if split == ONLY and len(splits) == 1:
        split = next(iter(splits))
    if not (files := splits.get(split)):
        raise DataError(f"{what}: there is no split {split!r}; it has: {', '.join(splits) or 'none'}")
    if other := [file for file in files if file not in listed or _form(file) not in READABLE]:
        told = f"files that are read: {', '.join(READABLE)}; text also with {', '.join(PACKED)} behind"
        raise DataError(f"{what}: {split} is kept in {other[0]}; {told}")
    return files


def _splits(view: Path, what: str) -> dict[str, list[str]]:
    """The files of each split that has any, as `datasets` finds them by their names."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(view), cache_dir=str(view.parent / "cache"))
    except Exception as error:  # of `datasets`, or of whatever it tried to open
        said = _one_line(str(error)).replace(f"{view}/", "").replace(str(view), "the repository")
        raise DataError(f"{what}: no data files are found: {said}") from error
    found = builder.config.data_files.items()
    return {str(split): [file.removeprefix(f"{view}/") for file in files] for split, files in found if files}


@dataclass(frozen=True)
class Table:
    """The rows of a split.

    Attributes:
        rows: each with its place, for errors, such as "train.csv, line 3", and its values by column.
        label_names: of the labels, in order, where the repository has such a list; then labels are indices into it,
            or these names.
    """

    rows: Iterable[tuple[str, dict[str, Any]]] = field(default_factory=list)
    label_names: tuple[str, ...] = ()


def load_split(card: Card, entry: dict[str, Any], folder: Path, files: list[str], split: str) -> Table:
    """The rows of a split, or of a part of it.

    Args:
        folder: the snapshot that holds the files.
        files: all that belong to the split.
        split: its name, or part of it, such as "validation[:100]".

    Raises:
        DataError: there is no such part; or a text file cannot be read, or not in one way only.
        Exception: what `datasets` says of a parquet file that it cannot read, or a packed file of its damage.
    """
    features = getattr(card.infos.get(entry["config_name"]), "features", None) or {}
    if ".parquet" in map(_form, files):
        whole = _load_parquet(entry, features or None, folder, files, split.partition("[")[0])
        return table_of(whole.select(_part(card.what, split, len(whole))), card.what)
    found = [row for file in files for row in _text_rows(card.what, entry, folder / file, file)]
    return Table([found[i] for i in _part(card.what, split, len(found))], _label_names(features))


def stream_split(card: Card, entry: dict[str, Any], folder: Path, files: list[str], split: str) -> Table:
    """As `load_split`, but rows of whole parquet files are read while they are gone through, once.

    A part of a split, and text, are loaded: text is decoded and parsed file by file.
    """
    if "[" in split or {*map(_form, files)} != {".parquet"}:
        return load_split(card, entry, folder, files, split)
    import datasets
    import pyarrow.parquet as pq

    with (folder / files[0]).open("rb") as opened:  # Arrow would take the path for UTF-8, whatever the locale
        schema = pq.read_schema(opened)
    features = getattr(card.infos.get(entry["config_name"]), "features", None) or datasets.Features.from_arrow_schema(
        schema
    )
    rows.check_names(card.what, schema.names)
    return Table(_parquet_rows([folder / file for file in files]), _label_names(features))


def _parquet_rows(files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet as pq

    number = 0
    for file in files:
        with file.open("rb") as opened, pq.ParquetFile(opened) as table:
            columns = [name for name in table.schema_arrow.names if name in COLUMNS]
            empty = dict.fromkeys(table.schema_arrow.names)
            for batch in table.iter_batches(STREAMED, columns=columns):
                for row in batch.to_pylist():
                    yield f"row {number}", empty | row
                    number += 1


def table_of(found: Any, what: str) -> Table:
    """A `datasets.Dataset` as rows; of columns that nobody looks at, such as pictures, only the names."""
    rows.check_names(what, found.column_names)
    empty = dict.fromkeys(found.column_names)
    looked_at = found.select_columns([column for column in found.column_names if column in COLUMNS])
    table = [(f"row {number}", empty | row) for number, row in enumerate(looked_at)]
    return Table(table, _label_names(found.features))


def _label_names(features: Any) -> tuple[str, ...]:
    """The names of the labels, where the column of labels has such a list."""
    listed = (getattr(features.get(column), "names", None) for column in rows.LABEL_COLUMNS)
    return tuple(next(filter(None, listed), ()))


def _load_parquet(entry: dict[str, Any], features: Any, folder: Path, files: list[str], split: str) -> Any:
    import datasets

    part = {"split": split, "path": [glob.escape(file) for file in files]}
    how = {key: value for key, value in entry.items() if key not in ("data_dir", "default")}
    datasets.disable_progress_bars()
    with _view(how | {"data_files": [part]}, {file: folder / file for file in files}) as view:
        return datasets.load_dataset(
            str(view), split=split, features=features, cache_dir=str(view.parent / "cache"), keep_in_memory=True
        )


def _form(path: str) -> str:
    """How a file is written, by its name without the ending of a packed text."""
    *_, before, last = ["", "", *PurePosixPath(path).suffixes]
    return before if last in PACKED and before != ".parquet" else last


def _text_rows(what: str, entry: dict[str, Any], file: Path, path: str) -> list[tuple[str, dict[str, Any]]]:
    """All rows of a csv, tsv or json file, each with its place."""
    name, form, content = f"{what}/{path}", _form(path), file.read_bytes()
    how = _options(name, form, entry)
    if unpack := PACKED.get(file.suffix):
        content = unpack(content)
    if form == ".json" and ("field" in how or content.removeprefix(BOM_UTF8).lstrip().startswith(b"[")):
        found = rows.parse_array(name, content, how.get("field", ""))
        return [(f"{path}, entry {number}", row) for number, row in enumerate(found, 1)]
    lines = rows.parse(name, content, ".jsonl" if form == ".json" else form, how.get("sep", ""))
    return [(f"{path}, line {line}", row) for line, row in lines]


def _options(name: str, form: str, entry: dict[str, Any]) -> dict[str, str]:
    """What the card says on how to read a text file.

    Raises:
        DataError: it asks for more than a separator or a field: another reader's option may mean other text.
    """
    asked = {key: value for key, value in entry.items() if key not in NAMING and value is not None}
    if str(asked.get("encoding")).lower().replace("-", "") == "utf8":
        del asked["encoding"]
    honoured = {".json": ("field",), ".jsonl": ()}.get(form, ("sep", "delimiter"))
    how = {key.replace("delimiter", "sep"): asked.pop(key) for key in honoured if key in asked}
    fine = all(isinstance(value, str) and value for value in how.values())
    if asked or not fine or not re.fullmatch(r'[^"\r\n]', how.get("sep", ",")):
        told = ", ".join(f"{key}: {value!r}" for key, value in (asked or how).items())
        raise DataError(
            f"{name}: its card says how to read it ({told}), which is not done here: of a table only `sep`, one "
            "character, counts, of a .json file only `field`. Save the rows with their text and label as .csv, .tsv or "
            ".jsonl, and use data_source=local"
        )
    return how


def _part(what: str, split: str, count: int) -> list[int]:
    """The numbers of the rows that belong to a split, or to a part of it, out of so many."""
    import datasets

    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({split.partition("[")[0]: count})
    except ValueError as error:
        raise DataError(f"{what}: there is no split {split!r}: {_one_line(str(error))}") from None
    return [number for part in parts for number in range(part.from_, part.to)]


@contextmanager
def _view(entry: dict[str, Any], files: dict[str, Path | None]) -> Iterator[Path]:
    """A folder that looks like a repository with one configuration; a file in it is a link to a real one, or empty."""
    with TemporaryDirectory(prefix="distilbench-") as place:
        view = Path(place).resolve() / "repository"
        view.mkdir()
        for path, real in files.items():
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                continue  # no file of a repository
            (view / path).parent.mkdir(parents=True, exist_ok=True)
            (view / path).symlink_to(real) if real else (view / path).touch()
        if len(entry) > 1:  # it says more than its name
            card = yaml.safe_dump({"configs": [entry]}, allow_unicode=True)
            (view / CARD).write_text(f"---\n{card}---\n", encoding="utf-8")
        yield view


def _one_line(text: str) -> str:
    return " ".join((text or "").split())
