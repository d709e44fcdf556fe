"""The embedded intents: the same sentences everywhere, 23 classes, none that two of them can mean."""

from __future__ import annotations

import re
import sys
import zipfile
from collections import Counter

import pytest

from distilbench import studies
from distilbench.errors import DataError, ModelError
from distilbench.sources import embedded, intents, texts
from distilbench.sources.embedded_text import normalise, split_of


@pytest.fixture(scope="module")
def rows():
    return intents.sentences()


@pytest.mark.embedded
def test_there_are_23_classes_of_about_as_many_sentences(rows):
    counts = Counter(label for _, _, label, _ in rows)
    assert sorted(counts) == list(range(23))
    assert len(rows) == 3680
    assert min(counts.values()) >= 150
    shares = Counter(split for *_, split in rows)
    assert shares["train"] / len(rows) == pytest.approx(0.8, abs=0.02)
    assert {label for _, _, label, split in rows if split == "validation"} == set(counts)


@pytest.mark.embedded
def test_no_sentence_stands_twice_and_each_is_in_the_split_of_its_hash(rows):
    assert len({normalise(text) for _, text, _, _ in rows}) == len(rows)
    assert len({number for number, *_ in rows}) == len(rows)
    assert all(split == split_of(text) for _, text, _, split in rows)


@pytest.mark.embedded
def test_sentences_are_whole_and_without_signs_of_the_grammar(rows):
    assert [text for _, text, _, _ in rows if re.search(r"[\[\](){}<>|;_]|  |^ | $", text)] == []
    assert max(len(text.split()) for _, text, _, _ in rows) < 25


@pytest.mark.embedded
def test_drawing_again_gives_the_same_sentences_whatever_was_drawn_before(rows):
    last = intents.LABELS[-1]
    assert intents._of_intent(intents._grammar(), last) == [
        text for _, text, label, _ in rows if intents.LABELS[label] == last
    ]


@pytest.mark.embedded
def test_the_study_takes_the_validation_split_and_says_that_it_is_generated():
    found = texts.load_texts(studies.resolve("qwen", {"profile": "smoke"}).params)
    assert found.label_names == intents.LABELS
    assert all(split_of(text) == "validation" for text in found.texts)
    assert "generated" in found.about["name"]
    assert "no person said them" in found.about["licence"]
    assert "mazon" not in str(found.about)
    assert found.about["package_sha256"] == intents.GRAMMAR.sha256


class Expression:
    """As much of an expression of `hassil` as a walk looks at."""

    def __init__(self, **values):
        vars(self).update(values)


def expression(kind, **values):
    return type(kind, (Expression,), {})(**values)


def chunk(text):
    return expression("TextChunk", original_text=text)


class Chance:
    """Takes the last of everything, and what is shuffled in reverse."""

    choice = staticmethod(lambda items: items[-1])
    sample = staticmethod(lambda items, count: items[::-1])
    randrange = staticmethod(lambda start, stop, step: range(start, stop, step)[-1])


def test_a_walk_takes_one_alternative_follows_rules_and_fills_in_values():
    numbers = expression("RangeSlotList", start=0, stop=100, step=25)
    colours = expression("TextSlotList", values=[expression("TextSlotValue", text_in=chunk("red"))])
    rules = {"the": expression("Sentence", expression=expression("Alternative", items=[chunk("a"), chunk("the")]))}
    walk = intents._Walk(Chance, rules, {"percent": numbers, "colour": colours}, "light")
    parts = [
        expression("Permutation", items=[chunk(" now "), chunk("set ")]),
        expression("RuleReference", rule_name="the"),
        chunk(" "),
        *(expression("ListReference", list_name=name) for name in ("percent", "colour", "name", "area")),
    ]
    told = walk.through(expression("Sequence", items=parts))
    assert told == "set  now the 100red" + intents.VALUES["name light"][-1] + intents.ROOMS[-1]
    unknown = intents._Walk(Chance, {}, {}, "scene")
    assert unknown.through(expression("ListReference", list_name="name")) == intents.VALUES["name"][-1]


def test_what_two_intents_can_mean_is_left_out(monkeypatch):
    drawn = {name: [f"{name} one", "Stop it!"] if i < 2 else [f"{name} one"] for i, name in enumerate(intents.LABELS)}
    monkeypatch.setattr(intents, "_grammar", lambda: None)
    monkeypatch.setattr(intents, "_of_intent", lambda grammar, name: drawn[name])
    found = intents.sentences()
    assert len(found) == 23
    assert not any("Stop" in text for _, text, _, _ in found)


def test_without_the_parser_it_is_said_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "hassil.intents", None)
    with pytest.raises(ModelError, match="need hassil, which parses their grammar"):
        intents.sentences()


def test_a_package_without_the_grammar_is_named(monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as packed:
        packed.writestr("README", "nothing")
    monkeypatch.setattr(intents, "fetch_package", lambda package: tmp_path / "other.whl")
    with pytest.raises(DataError, match=r"other\.whl does not hold the English grammar"):
        intents.sentences()


# ------------------------------------------------------------------ the classifier


@pytest.mark.embedded
def test_the_embedded_classifier_understands_commands():
    from distilbench.sources.models import load_model
    from distilbench.sources.tokenizers import load_tokenizer

    loaded = load_model(source="embedded", task="intents")
    tokenizer = load_tokenizer(studies.resolve("qwen", {"profile": "smoke"}).params)
    inputs = tokenizer(["turn off the reading lamp", "add some oranges to my list"], padding=True, return_tensors="pt")
    predicted = loaded.forward(inputs["input_ids"], inputs["attention_mask"]).argmax(-1).tolist()
    assert [loaded.info.label_names[i] for i in predicted] == ["HassTurnOff", "HassShoppingListAddItem"]
    assert loaded.info.name == embedded.TASKS["intents"].name
