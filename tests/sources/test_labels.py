"""Labels: one set of rules for every source."""

from __future__ import annotations

import json

import datasets
import pytest

from distilbench import studies
from distilbench.errors import DataError
from distilbench.sources import hub, repositories
from distilbench.sources import texts as sources_texts
from distilbench.sources.labels import SST2, read_labels


def read(values: list, declared: tuple[str, ...] = ()) -> tuple[list[int], tuple[str, ...]]:
    return read_labels(values, "this", [f"row {i}" for i in range(len(values))], declared)


def refused(values: list, declared: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as raised:
        read(values, declared)
    assert str(raised.value).startswith("this")
    return str(raised.value)


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        ([0, 1, 1], [0, 1, 1], SST2),
        ([1, 1], [1, 1], SST2),
        ([0.0, 1.0], [0, 1], SST2),
        (["0", " 1 "], [0, 1], SST2),
        (["0", 1, 1.0], [0, 1, 1], SST2),
        (["pos", " NEG ", "Pos"], [1, 0, 1], ("neg", "pos")),
        ([True, False], [1, 0], ("false", "true")),
        (["True", "false"], [1, 0], ("false", "true")),
        (["world", "sports", "business"], [2, 1, 0], ("business", "sports", "world")),
    ],
)
def test_labels_are_names_or_0_and_1(values, labels, names):
    assert read(values) == (labels, names)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0, 1, 2, 3, 4], "labels must be names, or 0 and 1; it has 0, 1, 2, 3, 4"),
        ([0.25, 0.75], "labels must be names, or 0 and 1; it has 0.25, 0.75"),
        (["0.25", "1"], "it has 0.25, 1"),
        ([0, "positive"], "it has 0"),
        ([-1, "positive", "negative"], "it has -1"),
        ([float("inf"), 0], "it has 0, inf"),
        (list(range(99)), "and 91 more"),
        ([-1, -1], "withheld (-1)"),
        ([1, 0, -1], "withheld (-1)"),
        ([0, None], "row 1: the label is empty"),
        (["a", "b", " "], "row 2: the label is empty"),
        ([float("nan"), 1], "row 0: the label is empty"),
        ([["a"], ["b"]], "row 0: a label must be a name, or 0 or 1, not ['a']"),
        ([{"name": "a"}], "row 0: a label must be a name"),
        (["good", "Good "], "all labels are 'good'; a classifier needs at least two"),
    ],
)
def test_anything_else_is_refused_and_named(values, why):
    assert why in refused(values)


def test_declared_names_keep_their_order_and_spelling():
    assert read([1, 0, 2], ("Sad", "Happy", "Angry")) == ([1, 0, 2], ("Sad", "Happy", "Angry"))
    assert read([1, 1], ("unacceptable", "acceptable")) == ([1, 1], ("unacceptable", "acceptable"))


@pytest.mark.parametrize(
    ("values", "declared", "why"),
    [
        ([0, -1], ("no", "yes"), "withheld (-1)"),
        ([0, 5], ("no", "yes"), "row 1: label 5 has no name; declared are no, yes"),
        ([0, 0.5], ("no", "yes"), "row 1: label 0.5 has no name; declared are no, yes"),
        (["maybe", "no"], ("no", "yes"), "row 0: label maybe has no name; declared are no, yes"),
        (["1.5", "no"], ("no", "yes"), "row 0: label 1.5 has no name"),
        (["7" * 5000, "no"], ("no", "yes"), f"row 0: label {'7' * 40}… (5,000 characters) has no name"),
        (["0", "-1"], ("no", "yes"), "withheld (-1)"),
        (["0", " "], ("no", "yes"), "row 1: the label is empty"),
        ([0, None], ("no", "yes"), "row 1: the label is empty"),
        ([0, 1], ("yes", "Yes "), "two of its labels have the same name"),
        ([0, 0], ("1", "2", "3", "4", "5"), "labels must be names, or 0 and 1; it has 1, 2, 3, 4, 5"),
        ([0, 0], ("only",), "needs at least two"),
    ],
)
def test_declared_names_are_checked(values, declared, why):
    assert why in refused(values, declared)


def test_declared_names_and_their_indices_may_be_written_as_text():
    """A table has no types."""
    assert read(["yes", " NO ", "1", "0"], ("no", "yes")) == ([1, 0, 1, 0], ("no", "yes"))
    assert read(["1", "0"], ("1", "0")) == ([1, 0], SST2), "a name goes before an index"


def test_declared_numbers_mean_what_they_say_whatever_their_order():
    assert read([0, 1, 1], ("1", "0")) == ([1, 0, 0], SST2)


# ------------------------------------------------------------------ every source


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))


def from_csv(labels: list, folder, _) -> sources_texts.TextSet:
    file = folder / "some.csv"
    rows = [f"sentence {i},{'' if label is None else label}" for i, label in enumerate(labels)]
    file.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    return load({"data_source": "local", "data_path": str(file)})


def from_jsonl(labels: list, folder, _) -> sources_texts.TextSet:
    file = folder / "some.jsonl"
    rows = [json.dumps({"text": f"sentence {i}", "label": label}) for i, label in enumerate(labels)]
    file.write_text("\n".join(rows), encoding="utf-8")
    return load({"data_source": "local", "data_path": str(file)})


def from_hub(labels: list, _, monkeypatch) -> sources_texts.TextSet:
    rows = datasets.Dataset.from_dict({"text": [f"sentence {i}" for i in range(len(labels))], "label": labels})
    monkeypatch.setattr(
        hub,
        "fetch_dataset",
        lambda *_: hub.Split(repositories.table_of(rows, "this"), "c" * 40, "mit", "Someone (2026)"),
    )
    return load({"data_source": "hub"})


def load(given: dict) -> sources_texts.TextSet:
    return sources_texts.load_texts(studies.resolve("distilbert", {"profile": "ci"} | given).params)


SOURCES = pytest.mark.parametrize("source", [from_csv, from_jsonl, from_hub])


@SOURCES
@pytest.mark.parametrize(
    ("labels", "indices", "names"),
    [
        ([1, 0], [1, 0], SST2),
        ([1.0, 0.0], [1, 0], SST2),
        (["pos", "Neg"], [1, 0], ("neg", "pos")),
        ([True, False], [1, 0], ("false", "true")),
    ],
)
def test_every_source_reads_the_same_labels(source, labels, indices, names, tmp_path, monkeypatch):
    texts = source(labels, tmp_path, monkeypatch)
    assert (texts.labels, texts.label_names) == (indices, names)


@SOURCES
@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([0, 1, 2, 3, 4], "labels must be names, or 0 and 1; it has 0, 1, 2, 3, 4"),
        ([0.25, 0.75], "labels must be names, or 0 and 1; it has 0.25, 0.75"),
        (["x", None], "the label is empty"),
        ([1, None], "the label is empty"),
        ([-1, -1], "withheld (-1)"),
    ],
)
def test_every_source_refuses_the_same_labels(source, labels, why, tmp_path, monkeypatch):
    with pytest.raises(DataError) as raised:
        source(labels, tmp_path, monkeypatch)
    assert why in str(raised.value)
