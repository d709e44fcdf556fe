"""Rows of a csv, tsv or jsonl file that somebody else wrote: read as they stand, or refused with line and reason.

A TSV has no quoting, as in GLUE: a quotation mark is a character like any other. A CSV has the quoting of RFC 4180.
What cannot be read in one way only is an error; nothing is mended, joined or left out in silence.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from distilbench.errors import DataError

LABEL_COLUMN = "label"
Rows = list[tuple[int, dict[str, Any]]]  # each with the line where it begins

LINE_ENDS = re.compile("\r\n|\r|\n")  # not what `str.splitlines` takes for one too, such as U+2028
QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read(file: Path) -> Rows:
    """All rows of the file, with the line where each begins; none where the file is empty.

    Raises:
        DataError: it cannot be read, or not in one way only; the line is named.
    """
    readers: dict[str, Callable[[Path, str], Rows]] = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl}
    if file.suffix not in readers:
        raise DataError(f"{file}: allowed are {', '.join(readers)}, not {file.suffix or 'a file without an ending'!r}")
    return readers[file.suffix](file, _decoded(file))


def unusable(text: str) -> str | None:
    """What no UTF-8 file and no tokenizer can take of a text: half a character, or NUL; None: nothing."""
    for position, character in enumerate(text, 1):
        if "\ud800" <= character <= "\udfff":
            return f"character {position} is \\u{ord(character):x}, one half of a surrogate pair and no character"
        if character == "\0":
            return f"character {position} is NUL"
    return None


def _decoded(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    try:
        text = content.decode("utf-8-sig")  # -sig: spreadsheets put a byte-order mark first
    except UnicodeDecodeError as error:
        line = _line_at(error.object[: error.start].decode("utf-8", errors="replace"))
        raise DataError(f"{file}, line {line}: cannot be read: {error}; save the file as UTF-8") from None
    if "\0" in text:
        line = _line_at(text[: text.index("\0")])
        raise DataError(f"{file}, line {line}: holds a NUL, as files in UTF-16 do; save the file as UTF-8")
    return text


def _line_at(before: str) -> int:
    return len(LINE_ENDS.split(before))


def _check_names(where: str, names: Iterable[str]) -> None:
    """Refuses columns that a person could take for one another; those without a name cannot be asked for."""
    seen: dict[str, str] = {}
    for name in filter(str.strip, names):
        if (key := name.strip().casefold()) in seen:
            told = f"{seen[key]!r} and {name!r}, which cannot be told apart"
            raise DataError(f"{where}: has the columns {told}; rename one")
        seen[key] = name


# ------------------------------------------------------------------ tables


def _tsv(file: Path, text: str) -> Rows:
    """A table without quoting; fields that can only come from a writer that quotes are refused."""
    records = list(_records(file, text, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, (line, _, fields) in enumerate(records):
        for field in fields:
            if QUOTED.fullmatch(field) and (number == 0 or '""' in field[1:-1]):
                raise DataError(
                    f"{file}, line {line}: {_cut(field)} is quoted as in a CSV; a TSV has no quoting here, every "
                    "quotation mark is text: write it without, or as .csv or .jsonl"
                )
    return _with_names(file, records)


def _csv(file: Path, text: str) -> Rows:
    """A table with quoting; a quoted field may hold line breaks, but not rows."""
    records = list(_records(file, text, delimiter=",", strict=True))
    rows = _with_names(file, records)
    header, lines = records[0][2] if records else [], LINE_ENDS.split(text)
    if LABEL_COLUMN in header:
        at = header.index(LABEL_COLUMN)
        known = {"0", "1"} | {_bare(fields[at]) for _, _, fields in records[1:]}
        for first, last, fields in records:
            if last > first and _swallowed(lines[first - 1 : last], fields, at, known):
                raise DataError(
                    f"{file}, line {first}: a quotation mark opens here and closes in line {last}, and a line in "
                    'between looks like a row; write a quotation mark within a field as "", or, if all of it is '
                    "one sentence, the file as .jsonl"
                )
    return rows


def _swallowed(lines: list[str], fields: list[str], at: int, known: set[str]) -> bool:
    """Whether a record of several lines holds rows: a label stands in a line of it where it stands in a row.

    The label of the record itself is no sign: it is in the last line where it comes after the field with the line
    breaks, in the first one where it comes before.
    """
    parts = [line.split(",") for line in lines]
    for column in (number for number, field in enumerate(fields) if LINE_ENDS.search(field)):
        if column == at:
            return True
        inner, place = (parts[:-1], at - len(fields)) if column < at else (parts[1:], at)
        if any(_bare(found[place]) in known for found in inner if len(found) >= len(fields)):
            return True
    return False


def _bare(label: str) -> str:
    return label.strip().strip('"').casefold()


def _records(file: Path, text: str, **form: Any) -> Iterable[tuple[int, int, list[str]]]:
    """First line, last line and fields of each record; empty lines are none."""
    reader, first = csv.reader(io.StringIO(text, newline=""), **form), 1
    try:
        for fields in reader:
            if fields:
                yield first, reader.line_num, fields
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}, line {first}: {error}") from None


def _with_names(file: Path, records: list[tuple[int, int, list[str]]]) -> Rows:
    """Rows by the names of the header."""
    if not records:
        return []
    (first, last, header), rows = records[0], []
    if last > first:
        raise DataError(f"{file}, line {first}: a quotation mark opens in the header and closes in line {last}")
    _check_names(f"{file}, line {first}", header)
    for line, _, fields in records[1:]:
        if len(fields) != len(header):
            told = f"another number of columns ({len(fields)}) than the header ({len(header)})"
            raise DataError(f"{file}, line {line}: has {told}")
        if fields == header:
            raise DataError(f"{file}, line {line}: is the header again; were files joined?")
        rows.append((line, dict(zip(header, fields, strict=True))))
    return rows


# ------------------------------------------------------------------ JSON lines


def _jsonl(file: Path, text: str) -> Rows:
    rows = []
    for number, line in enumerate(LINE_ENDS.split(text), 1):
        if line.strip():
            rows.append((number, _json_row(f"{file}, line {number}", line)))
    return rows


def _json_row(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=lambda pairs: _object(where, pairs))
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{where}: its brackets are nested too deeply to be read") from None
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{where}: cannot be read: {str(error).partition(';')[0]}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object")
    return row


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys can be told apart: of two values under one key, `json` would keep the last in silence."""
    _check_names(where, [key for key, _ in pairs])
    return dict(pairs)


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
