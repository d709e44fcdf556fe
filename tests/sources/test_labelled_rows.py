"""Rows with sentences and labels one by one: checked as a text is that is loaded whole."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from distilbench.errors import DataError
from distilbench.sources import embedded, hub, labelled_rows
from distilbench.sources.labelled_rows import Row, Source
from distilbench.sources.repositories import Table
from distilbench.sources.row_stream import Damaged


def read(*found: object, labels: tuple[str, ...] = (), declared: tuple[str, ...] = ()) -> list:
    return list(labelled_rows.read(Source({"name": "made up"}, found, declared), labels))


def row(text: object, label: object, place: str = "line 2") -> tuple[str, dict]:
    return place, {"text": text, "label": label}


def test_rows_are_numbered_trimmed_and_their_labels_spelt_in_one_way():
    found = read(row(" one ", "Positive"), Damaged("line 3", "is torn"), row("three", "NEGATIVE "))
    assert found == [Row(1, "one", "positive"), Damaged("line 3", "is torn"), Row(3, "three", "negative")]


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (row("", "a"), "the sentence is empty"),
        (row(7, "a"), "the sentence is 7, not text"),
        (row("half \ud800", "a"), "one half of a surrogate pair"),
        (row("one", ""), "the label is empty"),
        (row("one", None), "the label is empty"),
        (row("one", [1]), "a label must be a name"),
        (row("one", 3), "which class a number stands for is not guessed"),
        (row("one", "-1"), "its labels are withheld (-1)"),
        (row("one", "other"), "the label 'other' is none of the model's: a, b"),
        (("line 2", {"label": "a"}), "has no 'text'"),
        (("line 2", {"text": "one"}), "the label is empty"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_without_its_place(damaged, why):
    first, found, last = read(row("first", "a"), damaged, row("last", "b"), labels=("a", "b"))
    assert (first.number, last.number) == (1, 3)
    assert found.place == "line 2"
    assert why in found.why
    assert "line 2" not in found.why


def test_a_row_that_has_no_column_of_sentences_does_not_decide_for_the_others():
    found = read(("line 1", {"other": "x", "label": "a"}), ("line 2", {"sentence": "two", "label": "a"}))
    assert "needs a column 'label' and one of" in found[0].why
    assert found[1] == Row(2, "two", "a")


@pytest.mark.parametrize(("label", "name"), [(0, "negative"), ("1", "positive"), (True, "true"), ("0.0", "negative")])
def test_0_and_1_are_those_of_sst2(label, name):
    (found,) = read(row("one", label))
    assert found.label == name


def test_declared_names_give_indices_a_meaning():
    assert [one.label for one in read(row("a", 1), row("b", "Up"), declared=("Down", "Up"))] == ["up", "up"]
    (found,) = read(row("one", 2), declared=("Down", "Up"))
    assert "label 2 has no name; declared are Down, Up" in found.why


def params(**given: object) -> SimpleNamespace:
    usual = {"dataset_name": "n", "dataset_config": "c", "dataset_split": "s", "dataset_revision": "r"}
    return SimpleNamespace(**usual | given)


def test_each_source_says_what_it_is(tmp_path, monkeypatch):
    file = tmp_path / "rows.tsv"
    file.write_text("text\tlabel\none\ta\n")
    local = labelled_rows.source_of(params(data_source="local", data_path=str(file)))
    assert local.about["name"] == "rows.tsv"
    assert list(labelled_rows.read(local)) == [Row(1, "one", "a")]
    sentences = [(7, "two", 1, "validation"), (8, "three", 0, "train")]
    task = embedded.TASKS["movies"]
    text = dataclasses.replace(task.text, sentences=lambda: sentences)
    monkeypatch.setitem(embedded.TASKS, "movies", dataclasses.replace(task, text=text))
    package = labelled_rows.source_of(params(data_source="embedded", embedded_task="movies"))
    assert "vaderSentiment" in package.about["package"]
    assert list(labelled_rows.read(package)) == [Row(1, "two", "positive")]
    split = hub.Split(Table([("row 0", {"text": "four", "label": 1})], ("No", "Yes")), "abc", "MIT", "none")
    monkeypatch.setattr(hub, "stream_dataset", lambda *asked: split if asked == ("n", "c", "s", "r") else None)
    there = labelled_rows.source_of(params(data_source="hub"))
    assert there.about["revision"] == "abc"
    assert list(labelled_rows.read(there)) == [Row(1, "four", "yes")]


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(Exception, match="no-such-file"):
        labelled_rows.source_of(params(data_source="local", data_path="no-such-file.tsv"))
    assert issubclass(DataError, Exception)
