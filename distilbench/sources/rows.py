"""Rows of a csv, tsv or json file that somebody else wrote: read as they stand, or refused with line and reason.

A TSV has no quoting, as in GLUE: a quotation mark is a character like any other. A CSV has the quoting of RFC 4180.
No field of either has a type: `NA`, `null`, `true` and `007` are text.
What cannot be read in one way only is an error; nothing is mended, joined or left out in silence.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distilbench.errors import DataError

TEXT_COLUMNS = ("text", "sentence")
LABEL_COLUMNS = ("label", "labels")
NUMBER_COLUMN = "label_id"  # what a data set numbers its labels by; never used to match them
FORMS = (".csv", ".tsv", ".jsonl")
Rows = list[tuple[int, dict[str, Any]]]  # each with the line where it begins

LINE_ENDS = re.compile("\r\n|\r|\n")  # not what `str.splitlines` takes for one too, such as U+2028
QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read(file: Path) -> Rows:
    """All rows of the file, with the line where each begins; none where the file is empty.

    Raises:
        DataError: it cannot be read, or not in one way only; the line is named.
    """
    if file.suffix not in FORMS:
        raise DataError(f"{file}: allowed are {', '.join(FORMS)}, not {file.suffix or 'a file without an ending'!r}")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    return parse(str(file), content, file.suffix)


def parse(name: str, content: bytes, form: str, separator: str = "") -> Rows:
    """All rows of a file's content, with the line where each begins.

    Args:
        name: of the file, for errors.
        form: one of `FORMS`.
        separator: between the fields of a table, one character; a table with tabs is a TSV. Empty: that of the form.

    Raises:
        DataError: as `read`.
    """
    text = decoded(name, content)
    if form == ".jsonl":
        return _jsonl(name, text)
    separator = separator or {".csv": ",", ".tsv": "\t"}[form]
    return _tsv(name, text) if separator == "\t" else _csv(name, text, separator)


def parse_array(name: str, content: bytes, field: str = "") -> list[dict[str, Any]]:
    """The objects of a JSON document that is one array of them, or that has one under `field`.

    Raises:
        DataError: it is not, cannot be read, or not in one way only.
    """
    document = _json(name, decoded(name, content))
    if field:
        document = document.get(field) if isinstance(document, dict) else None
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise DataError(f"{name}: not an array of JSON objects{f' under {field!r}' if field else ''}")
    return document


def unusable(text: str) -> str | None:
    """What no UTF-8 file and no tokenizer can take of a text: half a character, or NUL; None: nothing."""
    for position, character in enumerate(text, 1):
        if "\ud800" <= character <= "\udfff":
            return f"character {position} is \\u{ord(character):x}, one half of a surrogate pair and no character"
        if character == "\0":
            return f"character {position} is NUL"
    return None


def decoded(name: str, content: bytes) -> str:
    """The text of a file in UTF-8, without a byte-order mark.

    Raises:
        DataError: it is none; the line is named.
    """
    try:
        text = content.decode("utf-8-sig")  # -sig: spreadsheets put a byte-order mark first
    except UnicodeDecodeError as error:
        line = _line_at(error.object[: error.start].decode("utf-8", errors="replace"))
        raise DataError(f"{name}, line {line}: cannot be read: {error}; save the file as UTF-8") from None
    if "\0" in text:
        line = _line_at(text[: text.index("\0")])
        raise DataError(f"{name}, line {line}: holds a NUL, as files in UTF-16 do; save the file as UTF-8")
    return text


def _line_at(before: str) -> int:
    return len(LINE_ENDS.split(before))


def check_names(where: str, names: Iterable[str]) -> None:
    """Refuses columns that a person could take for one another; those without a name cannot be asked for."""
    seen: dict[str, str] = {}
    for name in filter(str.strip, names):
        if (key := name.strip().casefold()) in seen:
            told = f"{seen[key]!r} and {name!r}, which cannot be told apart"
            raise DataError(f"{where}: has the columns {told}; rename one")
        seen[key] = name


# ------------------------------------------------------------------ tables


def _tsv(name: str, text: str) -> Rows:
    """A table without quoting; fields that can only come from a writer that quotes are refused."""
    records = list(_records(name, text, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, (line, _, fields) in enumerate(records):
        for field in fields:
            if QUOTED.fullmatch(field) and (number == 0 or '""' in field[1:-1]):
                raise DataError(
                    f"{name}, line {line}: {_cut(field)} is quoted as in a CSV; a TSV has no quoting here, every "
                    "quotation mark is text: write it without, or as .csv or .jsonl"
                )
    return _with_names(name, records)


def _csv(name: str, text: str, separator: str) -> Rows:
    """A table with quoting; a quoted field may hold line breaks, but not rows."""
    records = list(_records(name, text, delimiter=separator, strict=True))
    rows = _with_names(name, records)
    header, lines = records[0][2] if records else [], LINE_ENDS.split(text)
    for at in (number for number, column in enumerate(header) if column in LABEL_COLUMNS):
        known = {"0", "1"} | {_bare(fields[at]) for _, _, fields in records[1:]}
        for first, last, fields in records:
            if last > first and _swallowed(lines[first - 1 : last], fields, at, known, separator):
                raise DataError(
                    f"{name}, line {first}: a quotation mark opens here and closes in line {last}, and a line in "
                    'between looks like a row; write a quotation mark within a field as "", or, if all of it is '
                    "one sentence, the file as .jsonl"
                )
    return rows


def _swallowed(lines: list[str], fields: list[str], at: int, known: set[str], separator: str) -> bool:
    """Whether a record of several lines holds rows: a label stands in a line of it where it stands in a row.

    The label of the record itself is no sign: it is in the last line where it comes after the field with the line
    breaks, in the first one where it comes before.
    """
    parts = [line.split(separator) for line in lines]
    for column in (number for number, field in enumerate(fields) if LINE_ENDS.search(field)):
        if column == at:
            return True
        inner, place = (parts[:-1], at - len(fields)) if column < at else (parts[1:], at)
        if any(_bare(found[place]) in known for found in inner if len(found) >= len(fields)):
            return True
    return False


def _bare(label: str) -> str:
    return label.strip().strip('"').casefold()


def _records(name: str, text: str, **form: Any) -> Iterable[tuple[int, int, list[str]]]:
    """First line, last line and fields of each record; empty lines are none."""
    reader, first = csv.reader(io.StringIO(text, newline=""), **form), 1
    try:
        for fields in reader:
            if fields:
                yield first, reader.line_num, fields
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{name}, line {first}: {error}") from None


def _with_names(name: str, records: list[tuple[int, int, list[str]]]) -> Rows:
    """Rows by the names of the header."""
    if not records:
        return []
    (first, last, header), rows = records[0], []
    if last > first:
        raise DataError(f"{name}, line {first}: a quotation mark opens in the header and closes in line {last}")
    check_names(f"{name}, line {first}", header)
    for line, _, fields in records[1:]:
        if len(fields) != len(header):
            told = f"another number of columns ({len(fields)}) than the header ({len(header)})"
            raise DataError(f"{name}, line {line}: has {told}")
        if fields == header:
            raise DataError(f"{name}, line {line}: is the header again; were files joined?")
        rows.append((line, dict(zip(header, fields, strict=True))))
    return rows


# ------------------------------------------------------------------ JSON lines


def _jsonl(name: str, text: str) -> Rows:
    rows = []
    for number, line in enumerate(LINE_ENDS.split(text), 1):
        if line.strip():
            rows.append((number, _json_row(f"{name}, line {number}", line)))
    return rows


def _json_row(where: str, line: str) -> dict[str, Any]:
    row = _json(where, line)
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object")
    return row


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(where, pairs))
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg}{f' in line {error.lineno}' * (error.lineno > 1)}") from None
    except RecursionError:
        raise DataError(f"{where}: its brackets are nested too deeply to be read") from None
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{where}: cannot be read: {str(error).partition(';')[0]}") from None


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys can be told apart: of two values under one key, `json` would keep the last in silence."""
    check_names(where, [key for key, _ in pairs])
    return dict(pairs)


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
