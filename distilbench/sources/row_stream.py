"""Rows of a csv, tsv or jsonl file one by one, in bounded memory: one that is damaged is told, and the next one comes.

The rules are those of `rows`, which reads a file whole and refuses all of it for one row.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilbench.errors import DataError
from distilbench.sources import rows

MOST_CHARACTERS = 2**20  # of a line: a file without line ends does not fit into memory
MOST_LINES = 1000  # of one quoted field
Line = tuple[int, str]  # its number, and its text without the line end


@dataclass(frozen=True)
class Damaged:
    """A row that cannot be used.

    Attributes:
        place: where it stands, such as "line 3".
        why: what is wrong with it.
    """

    place: str
    why: str


Found = tuple[str, dict[str, Any]] | Damaged  # a row with its place, or why there is none


def stream(file: Path, labels: Iterable[str] = ()) -> Iterator[Found]:
    """The rows of a file, each with its place; damaged ones among them.

    Args:
        labels: what may stand in the column of labels; tells a row of a CSV that an open quotation mark swallowed.

    Raises:
        DataError: the file cannot be read at all: its ending, or its header.
    """
    if file.suffix not in rows.FORMS:
        raise DataError(
            f"{file}: allowed are {', '.join(rows.FORMS)}, not {file.suffix or 'a file without an ending'!r}"
        )
    lines = _lines(file)
    if file.suffix == ".jsonl":
        return _each(lines, lambda line: rows._json_row(f"line {line[0]}", line[1]))
    return _table(file, lines, {label.strip().casefold() for label in labels})


def _lines(file: Path) -> Iterator[Line | Damaged]:
    """All lines; a byte-order mark is none of the first one's."""
    try:
        # bytes that are no UTF-8 become lone surrogates, which stand nowhere else, so that the other lines can be read
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            number = 0
            while line := opened.readline(MOST_CHARACTERS):
                number += 1
                text = line.rstrip("\r\n")
                if text == line and len(line) == MOST_CHARACTERS:
                    _skip_line(opened)
                    yield Damaged(f"line {number}", f"is longer than {MOST_CHARACTERS:,} characters")
                elif why := _undecoded(text):
                    yield Damaged(f"line {number}", why)
                else:
                    yield number, text
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None


def _skip_line(opened: Any) -> None:
    while (rest := opened.readline(MOST_CHARACTERS)) and not rest.endswith(("\n", "\r")):
        pass


def _undecoded(text: str) -> str | None:
    for position, character in enumerate(text, 1):
        if "\udc80" <= character <= "\udcff":
            return f"byte 0x{ord(character) - 0xDC00:02x} (character {position}) is no UTF-8; save the file as UTF-8"
        if character == "\0":
            return "holds a NUL, as files in UTF-16 do; save the file as UTF-8"
    return None


def _each(lines: Iterator[Line | Damaged], read: Callable[[Line], dict[str, Any]]) -> Iterator[Found]:
    """A row for each line that is not empty."""
    for line in lines:
        if isinstance(line, Damaged):
            yield line
            continue
        if not line[1].strip():
            continue
        place = f"line {line[0]}"
        try:
            yield place, read(line)
        except DataError as error:
            yield damaged(place, error)


def damaged(place: str, error: DataError, what: str = "") -> Damaged:
    """What an error says of a row; `what` names the file in it."""
    said = str(error).removeprefix(f"{what}, " if what else "").removeprefix(place).removeprefix(": ")
    return Damaged(place, said)


# ------------------------------------------------------------------ tables


def _table(file: Path, lines: Iterator[Line | Damaged], labels: set[str]) -> Iterator[Found]:
    first = next((line for line in lines if isinstance(line, Damaged) or line[1].strip()), None)
    if first is None:
        return iter(())
    if isinstance(first, Damaged):
        raise DataError(f"{file}, {first.place}, the header: {first.why}")
    quoted = file.suffix == ".csv"
    header = _header(f"{file}, line {first[0]}", first[1], quoted)
    if not quoted:
        return _each(lines, lambda line: _named(header, _of_tsv(line[1])))
    return _of_csv(lines, header, labels)


def _header(where: str, text: str, quoted: bool) -> list[str]:
    try:
        names = next(csv.reader([text], strict=True)) if quoted else _of_tsv(text, True)
    except csv.Error as error:
        raise DataError(f"{where}: {error}") from None
    rows.check_names(where, names)
    return names


def _of_tsv(text: str, header: bool = False) -> list[str]:
    fields = text.split("\t")
    for field in fields:
        if rows.QUOTED.fullmatch(field) and (header or '""' in field[1:-1]):
            raise DataError(f"{rows._cut(field)} is quoted as in a CSV; a TSV has no quoting: every mark is text")
    return fields


def _named(header: list[str], fields: list[str]) -> dict[str, Any]:
    """A row by the names of the header."""
    if len(fields) != len(header):
        raise DataError(f"has another number of columns ({len(fields)}) than the header ({len(header)})")
    if fields == header:
        raise DataError("is the header again; were files joined?")
    return dict(zip(header, fields, strict=True))


def _of_csv(lines: Iterator[Line | Damaged], header: list[str], labels: set[str]) -> Iterator[Found]:
    """Rows with quoted fields; of a row whose quotation mark swallows others, only its first line is lost."""
    waiting: deque[Line | Damaged] = deque()
    known = {"0", "1"} | labels
    while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
        if isinstance(line, Damaged):
            yield line
            continue
        if not line[1].strip():
            continue
        record, place = [line], f"line {line[0]}"
        try:
            row = _csv_row(record, _following(record, lines, waiting), header, known)
        except DataError as error:
            waiting.extendleft(reversed(record[1:]))
            yield damaged(place, error)
            continue
        known |= {str(row[column]).strip().casefold() for column in rows.LABEL_COLUMNS if column in row}
        yield place, row


def _following(record: list[Line], lines: Iterator[Line | Damaged], waiting: deque[Line | Damaged]) -> Iterator[str]:
    """The lines of a record as its reader asks for them, which `record` then holds; up to one that is damaged."""
    yield f"{record[0][1]}\n"
    while len(record) < MOST_LINES:
        following = waiting.popleft() if waiting else next(lines, None)
        if not isinstance(following, tuple):
            waiting.extendleft([following] if following else [])
            return
        record.append(following)
        yield f"{following[1]}\n"


def _csv_row(record: list[Line], following: Iterator[str], header: list[str], known: set[str]) -> dict[str, Any]:
    """The row that begins with the first line of `record`, which has all of its lines in the end."""
    try:
        fields = next(csv.reader(following, strict=True))
    except csv.Error as error:
        raise DataError(f"{error}; a quotation mark within a field is written twice") from None
    if len(record) > 1 and (labels := [at for at, name in enumerate(header) if name in rows.LABEL_COLUMNS]):
        texts, at = [text for _, text in record], labels[0]
        if len(fields) != len(header) or rows._swallowed(texts, fields, at, known, ","):
            raise DataError(
                f"a quotation mark opens here and closes in line {record[-1][0]}, and a line in between looks like a "
                'row; write a quotation mark within a field as ""'
            )
    return _named(header, fields)
