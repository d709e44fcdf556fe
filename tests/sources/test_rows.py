"""Rows of files that somebody else wrote: each as it stands, or an error that names the line; never other text."""

from __future__ import annotations

import csv

import pytest

from distilbench.errors import DataError
from distilbench.sources import rows


def read(tmp_path, name: str, content: str | bytes) -> rows.Rows:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return rows.read(file)


def refused(tmp_path, name: str, content: str | bytes) -> str:
    """What is said, without the folder."""
    with pytest.raises(DataError) as raised:
        read(tmp_path, name, content)
    return str(raised.value).replace(f"{tmp_path}/", "")


def plain(begin: int, end: int, delimiter: str) -> str:
    """Rows that are fine, one a line; their labels are 0 and 1 in turn."""
    return "".join(f"film number {number}{delimiter}{number % 2}\n" for number in range(begin, end))


# ------------------------------------------------------------------ quotation marks

STRAY = {  # as in files that were joined from reviews: a mark that opens a line, another that ends a later one
    "two lines": '"a dull film he said{d}0\na fine one she said"{d}1\n',
    "twenty lines apart": '"a dull film{d}0\n{between}a warm one"{d}1\n',
    "within the last column": 'a dull film{d}"0\na warm one{d}1"\n',
}


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
def test_in_a_tsv_a_quotation_mark_is_text(tmp_path, stray):
    content = "sentence\tlabel\n" + plain(0, 5, "\t") + stray.format(d="\t", between=plain(5, 25, "\t"))
    found = read(tmp_path, "a.tsv", content + plain(25, 30, "\t"))
    lines = content.splitlines()[1:]
    assert [line for line, _ in found] == list(range(2, 2 + len(lines) + 5))
    assert [f"{row['sentence']}\t{row['label']}" for _, row in found][: len(lines)] == lines


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("header", ["text,label", "label,text", "label,text,more", "id,label,text"])
def test_in_a_csv_a_quotation_mark_that_swallows_rows_is_named(tmp_path, stray, header):
    def arranged(line: str) -> str:
        text, _, label = line.rpartition(",")
        return ",".join({"text": text, "label": label}.get(name, "more") for name in header.split(","))

    content = plain(0, 5, ",") + stray.format(d=",", between=plain(5, 25, ",")) + plain(25, 30, ",")
    content = "\n".join([header, *map(arranged, content.splitlines()), ""])
    message = refused(tmp_path, "a.csv", content)
    assert message.startswith("a.csv, line 7: ")


def test_a_quotation_mark_that_swallows_rows_says_how_far(tmp_path):
    content = "text,label\n" + STRAY["twenty lines apart"].format(d=",", between=plain(0, 20, ","))
    message = refused(tmp_path, "a.csv", content)
    assert message.startswith(
        "a.csv, line 2: a quotation mark opens here and closes in line 23, and a line in between looks like a row"
    )
    assert "the file as .jsonl" in message


def test_named_labels_are_known_in_any_writing(tmp_path):
    content = 'text,label\nwarm,Good\ncold,bad\n"dull,BAD\nwarm again", good \n'
    assert refused(tmp_path, "a.csv", content).startswith("a.csv, line 4: ")


def test_a_quotation_mark_that_swallows_the_header_is_named(tmp_path):
    message = refused(tmp_path, "a.csv", '"text,label\nwarm,1\ncold",0\n')
    assert message == "a.csv, line 1: a quotation mark opens in the header and closes in line 3"


def test_a_sentence_of_several_lines_is_one_in_a_csv(tmp_path):
    """Line breaks within a field are legitimate there; a line is named by where its row begins."""
    content = 'text,label\nwarm,1\n"A film, long\n\nand ""slow"", 90 minutes\r\nof it",0\ncold,0\n'
    found = read(tmp_path, "a.csv", content)
    assert [line for line, _ in found] == [2, 3, 7]
    assert found[1][1] == {"text": 'A film, long\n\nand "slow", 90 minutes\r\nof it', "label": "0"}
    beside = 'id,label,text\n7,1,warm\n8,0,"A film, long\nand slow"\n'
    assert read(tmp_path, "c.csv", beside)[1][1]["text"] == "A film, long\nand slow"
    swapped = 'label,text\n1,warm\n0,"A film, long\nand slow"\n'
    assert read(tmp_path, "b.csv", swapped)[1][1]["text"] == "A film, long\nand slow"


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_a_tsv_that_was_written_with_quoting_is_refused(tmp_path, quoting):
    """Its marks are not in the sentences: reading them as text would measure other text."""
    file = tmp_path / "a.tsv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", quoting=quoting)
        writer.writerows([["text", "label"], ["warm", 1], ['a "fine" film', 1]])
    with pytest.raises(DataError, match=r"a\.tsv, line [13]: .* is quoted as in a CSV; a TSV has no quoting here"):
        rows.read(file)


@pytest.mark.parametrize("text", ['"a fine film"', '"a" and "b"', '5" of rain', '"', '""', "''a fine film''"])
def test_a_sentence_in_quotation_marks_keeps_them_in_a_tsv(tmp_path, text):
    assert read(tmp_path, "a.tsv", f"text\tlabel\n{text}\t1\n")[0][1]["text"] == text


# ------------------------------------------------------------------ names of columns


@pytest.mark.parametrize(
    "header", ["text,label,label", "text,label,Label", "text,label, label", "text,TEXT,label", "a,text,label,a"]
)
def test_columns_that_cannot_be_told_apart_are_refused(tmp_path, header):
    message = refused(tmp_path, "a.csv", f"{header}\n{','.join('0' * len(header.split(',')))}\n")
    assert message.startswith("a.csv, line 1: has the columns ")
    assert message.endswith("which cannot be told apart; rename one")
    assert read(tmp_path, "a.tsv", "text\tlabel\tother\na\t1\tb\n")


def test_keys_that_cannot_be_told_apart_are_refused(tmp_path):
    good = '{"text": "a", "label": 1}\n'
    for twice in ('{"text": "a", "label": 0, "label": 1}', '{"text": "a", "label": 0, "Label": 1}'):
        assert refused(tmp_path, "a.jsonl", f"{good}{twice}\n").startswith("a.jsonl, line 2: has the columns 'label'")


def test_columns_without_a_name_are_no_names(tmp_path):
    """pandas writes its index so."""
    assert read(tmp_path, "a.csv", ",text,label,\n7,warm,1,\n") == [(2, {"": "", "text": "warm", "label": "1"})]


def test_the_header_again_is_no_row(tmp_path):
    content = "text,label\nwarm,good\ncold,bad\n"
    message = refused(tmp_path, "a.csv", content + content)
    assert message == "a.csv, line 4: is the header again; were files joined?"


# ------------------------------------------------------------------ characters


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", ("text,label", "warm,1", "", "cold\u2028er,0")),
        ("a.tsv", ("text\tlabel", "warm\t1", "", "cold\u2028er\t0")),
        ("a.jsonl", ("", '{"text": "warm", "label": "1"}', "", '{"text": "cold\u2028er", "label": "0"}')),
    ],
)
@pytest.mark.parametrize("mark", ["", "\N{BYTE ORDER MARK}"])
def test_ends_of_lines_and_a_mark_of_byte_order_change_nothing(tmp_path, name, lines, end, mark):
    found = read(tmp_path, name, mark + end.join(lines))
    assert found == [(2, {"text": "warm", "label": "1"}), (4, {"text": "cold\u2028er", "label": "0"})]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_file_in_another_encoding_is_named_with_its_line(tmp_path, name):
    latin = refused(tmp_path, name, "text,label\ncaf\xe9,1\n".encode("latin-1"))
    assert latin.startswith(f"{name}, line 2: cannot be read: 'utf-8' codec can't decode byte 0xe9")
    assert latin.endswith("save the file as UTF-8")
    assert f"{name}, line 1: cannot be read" in refused(tmp_path, name, "text,label\nwarm,1\n".encode("utf-16"))
    wide = refused(tmp_path, name, "text,label\nwarm,1\n".encode("utf-16-le"))
    assert wide == f"{name}, line 1: holds a NUL, as files in UTF-16 do; save the file as UTF-8"


def test_json_that_cannot_be_read_is_named_with_line_and_reason(tmp_path):
    good = '{"text": "a", "label": 1}\n'
    long = refused(tmp_path, "a.jsonl", good + '{"text": "b", "label": ' + "7" * 5000 + "}\n")
    assert long.startswith("a.jsonl, line 2: cannot be read: Exceeds the limit (4300 digits)")
    assert "set_int_max_str_digits" not in long, "no call of Python's is the way out"
    deep = refused(
        tmp_path, "a.jsonl", good + '{"text": "b", "label": 1, "more": ' + "[" * 100_000 + "]" * 100_000 + "}"
    )
    assert deep == "a.jsonl, line 2: its brackets are nested too deeply to be read"


def test_both_halves_of_a_character_are_one(tmp_path):
    assert read(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00", "label": 1}')[0][1]["text"] == "\N{GRINNING FACE}"
    assert rows.unusable("\N{GRINNING FACE}") is None
