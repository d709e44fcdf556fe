"""Rows one by one: the same ones as when a file is read whole; what is damaged is named, and the others come."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from distilbench.errors import DataError
from distilbench.sources import row_stream, rows
from distilbench.sources.row_stream import Damaged, stream

GOOD = {
    ".csv": 'text,label\n"He said ""no"", twice",a\n\n"two\nlines",b\nNA,a\n',
    ".tsv": 'text\tlabel\nA "quoted" word\ta\n\n007\tb\n',
    ".jsonl": '{"text": "one", "label": 1}\n\n{"text": "a\\u2028b", "label": "a"}\n',
}


def written(tmp_path: Path, ending: str, content: str | bytes) -> Path:
    file = tmp_path / f"rows{ending}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def places(found: list) -> list[str]:
    return [one.place if isinstance(one, Damaged) else one[0] for one in found]


def damage_of(file: Path) -> Damaged:
    (found,) = [one for one in stream(file) if isinstance(one, Damaged)]
    return found


@pytest.mark.parametrize("ending", GOOD)
@pytest.mark.parametrize("form", ["\n", "\r\n", "\ufeff\n"], ids=["unix", "windows", "with a mark"])
def test_good_rows_are_those_of_a_file_that_is_read_whole(tmp_path, ending, form):
    mark, end = form[:-1].replace("\r", ""), form.lstrip("\ufeff")
    file = written(tmp_path, ending, mark + GOOD[ending].replace("\n", end))
    whole = [(f"line {line}", row) for line, row in rows.read(file)]
    streamed = [(place, {k: v.replace("\n", end) if isinstance(v, str) else v for k, v in row.items()})
                for place, row in stream(file)]  # fmt: skip
    assert streamed == whole


DAMAGED = {
    "bytes": (".tsv", b"text\tlabel\none\ta\ntw\xff\ta\nthree\tb\n", "byte 0xff (character 3) is no UTF-8"),
    "NUL": (".csv", b"text,label\none,a\ntw\0,a\nthree,b\n", "holds a NUL"),
    "columns": (".tsv", b"text\tlabel\none\ta\ntwo\nthree\tb\n", r"another number of columns (1) than the header (2)"),
    "header again": (".csv", b"text,label\none,a\ntext,label\nthree,b\n", "is the header again"),
    "quoted TSV": (".tsv", b'text\tlabel\none\ta\n"a ""b"""\ta\nthree\tb\n', "a TSV has no quoting"),
    "open mark": (".csv", b'text,label\none,a\n"two,a\nthree,b\n', "quotation mark"),
    "swallowing": (".csv", b'text,label\none,a\n"two,a\nthree,b\nfour",b\n', "closes in line 5"),
    "broken JSON": (".jsonl", b'{"text": "one"}\n{"text": \n{"text": "three"}\n', "not JSON"),
    "no object": (".jsonl", b'{"text": "one"}\n[2]\n{"text": "three"}\n', "not a JSON object"),
    "keys": (".jsonl", b'{"text": "one"}\n{"a": 1, "A": 2}\n{"text": "three"}\n', "cannot be told apart"),
}  # fmt: skip


@pytest.mark.parametrize("what", [name for name in DAMAGED if name != "swallowing"])
def test_a_damaged_row_is_named_and_its_neighbours_come(tmp_path, what):
    ending, content, why = DAMAGED[what]
    found = list(stream(written(tmp_path, ending, content)))
    middle = "line 2" if ending == ".jsonl" else "line 3"
    (damage,) = [one for one in found if isinstance(one, Damaged)]
    assert damage.place == middle
    assert why in damage.why
    assert not damage.why.startswith(("line", ":"))
    texts = [one[1]["text"] for one in found if not isinstance(one, Damaged)]
    assert texts == ["one", "three"]


def test_an_open_quotation_mark_costs_its_own_line_and_no_other(tmp_path):
    ending, content, why = DAMAGED["swallowing"]
    found = list(stream(written(tmp_path, ending, content), labels=("A", "B")))
    assert places(found) == ["line 2", "line 3", "line 4", "line 5"]
    assert isinstance(found[1], Damaged)
    assert why in found[1].why
    assert found[2] == ("line 4", {"text": "three", "label": "b"})
    assert found[3] == ("line 5", {"text": 'four"', "label": "b"}), "as when the file is read whole"


def test_a_mark_within_a_field_swallows_nothing(tmp_path):
    file = written(tmp_path, ".csv", 'text,label\n5" nails,a\n"a ""b""",b\nsix",a\n')
    assert [row["text"] for _, row in stream(file)] == ['5" nails', 'a "b"', 'six"']


def test_known_labels_tell_a_swallowed_row_before_any_was_seen(tmp_path):
    content = 'text,label\n"two,a\nthree,b\nfour",b\n'
    file = written(tmp_path, ".csv", content)
    assert places(stream(file, labels=("b",))) == ["line 2", "line 3", "line 4"]


def test_damage_within_a_quoted_field_ends_it(tmp_path):
    found = list(stream(written(tmp_path, ".csv", b'text,label\n"one\nt\xffo",a\nthree,b\n')))
    assert places(found) == ["line 2", "line 3", "line 4"]
    assert [isinstance(one, Damaged) for one in found] == [True, True, False]


def test_a_line_that_does_not_fit_is_named_and_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(row_stream, "MOST_CHARACTERS", 20)
    file = written(tmp_path, ".tsv", "text\tlabel\n" + "x" * 70 + "\ta\nthree\tb\n")
    found = list(stream(file))
    assert found == [Damaged("line 2", "is longer than 20 characters"), ("line 3", {"text": "three", "label": "b"})]


@pytest.mark.parametrize("content", ["te\xfft\tlabel\n".encode("latin-1"), b'"text"\tlabel\n', b"text\tText\n"])
def test_without_a_header_there_are_no_rows(tmp_path, content):
    with pytest.raises(DataError):
        list(stream(written(tmp_path, ".tsv", content + b"one\ta\n")))


def test_a_csv_header_whose_mark_does_not_close_is_named(tmp_path):
    with pytest.raises(DataError, match="line 1"):
        list(stream(written(tmp_path, ".csv", 'text,"label\none,a\n')))


@pytest.mark.parametrize("ending", GOOD)
def test_an_empty_file_has_no_rows(tmp_path, ending):
    assert list(stream(written(tmp_path, ending, "\n"))) == []


def test_another_ending_and_a_file_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"allowed are \.csv, \.tsv, \.jsonl, not '\.txt'"):
        stream(tmp_path / "rows.txt")
    with pytest.raises(DataError, match="cannot be read"):
        list(stream(tmp_path / "none.jsonl"))


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def peak(count: int) -> int:
        file = written(tmp_path, ".csv", "text,label\n" + '"a ""sentence"" of words",positive\n' * count)
        tracemalloc.start()
        assert sum(1 for _ in stream(file)) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(20_000) < peak(2_000) + 20_000
