"""Questions from a package that is installed: all that can be read, and none that was not looked at."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from types import SimpleNamespace

import pytest

from distilbench.errors import DataError, ModelError
from distilbench.sources import questions


def test_questions_have_four_choices_and_an_answer():
    found = questions.load()
    assert (len(found.shown), len(found.asked)) == (56, 216)
    for one in [*found.shown, *found.asked]:
        assert len(one["choices"]) == 4
        assert all(one["choices"])
        assert questions.LETTERS[one["answer"]] == one["letter"]
        assert "step by step" not in one["question"]
    assert len({one["question"] for one in [*found.shown, *found.asked]}) == 272, "none twice, none shown and asked"
    assert len({one["subject"] for one in found.asked[:50]}) == 50, "the first few are of many subjects"
    ring = next(one for one in found.asked if "characteristic of the ring 2Z" in one["question"])
    assert (ring["choices"], ring["letter"]) == (["0", "3", "12", "30"], "A")
    assert "MIT" in found.manifest["licence"]


def test_another_file_is_refused(tmp_path, monkeypatch):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(DataError, match=r"is missing, expected SHA-256 0814"):
        questions.load()
    (tmp_path / questions.PLACE).parent.mkdir(parents=True)
    (tmp_path / questions.PLACE).write_text("{}")
    with pytest.raises(DataError, match=r"its questions were not looked at"):
        questions.load()


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'distilbench\[llm\]' brings it"):
        questions.load()
    assert importlib.metadata.version(questions.PACKAGE)
