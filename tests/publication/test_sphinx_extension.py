"""What Sphinx makes of a chapter that shows a calibration, published or not."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from distilbench import paths, studies
from distilbench.measurements.calibration import forks
from distilbench.publication import provenance, publish, sphinx_extension
from distilbench.report import glue
from distilbench.runs.folder import Run

TABLE = "```{calibration} full\n:name: tab-one\n"
NUMBER = "{glue:text}`calibration/full::overhead-added-to-a-time-us:.2f`"
FULL = provenance.run_of("calibration/full").folder  # of the committed ones
CHAPTER = (paths.repo_root() / "book" / "method.md").read_text()
FORKED = re.search(r"```\{calibration\} forks.*?\n```\n", CHAPTER, re.DOTALL)[0]


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Parses one chapter; returns what it says, its marked numbers, and what was complained of."""
    monkeypatch.setattr(publish, "pages", list)  # of the book, which others hold against their runs
    monkeypatch.setattr(paths, "published_root", lambda: tmp_path / "published")
    given = {"extensions": ["myst_nb", sphinx_extension.__name__], "master_doc": "index"}
    folders = (tmp_path, None, tmp_path / "out", tmp_path / "trees")

    def parse(text: str) -> tuple[str, list[provenance.Certificate], str]:
        (tmp_path / "index.md").write_text(f"# Chapter\n\n{text}\n")
        with docutils_namespace(), (tmp_path / "warnings").open("w+") as warnings:
            app = Sphinx(*folders, "dummy", status=None, warning=warnings, confoverrides=given)
            app.build()
            warnings.seek(0)
            tree = app.env.get_doctree("index")
            numbers = [node["certificate"] for node in tree.findall(sphinx_extension.Certified)]
            return " ".join(tree.astext().split()), numbers, warnings.read()

    return parse


def test_what_is_not_published_is_said_only_where_it_may_lack(build):
    text, numbers, warnings = build(f"{TABLE}:optional:\n\nIt takes {NUMBER} µs.\n```")
    assert "Not measured yet: no calibration of depth full is published." in text
    assert "It takes" not in text
    assert numbers == []
    assert warnings == ""
    text, _, warnings = build(f"{TABLE}\nIt takes {NUMBER} µs.\n```")
    assert "no calibration of depth 'full' is published: make one" in warnings


def test_what_is_published_stands_there_with_the_text_on_its_numbers(build, tmp_path):
    shutil.copytree(FULL, tmp_path / "published" / "calibration" / FULL.name)
    text, (number,), warnings = build(f"{TABLE}:optional:\n\nIt takes {NUMBER} µs.\n```")
    assert f"It takes {glue.values(Run(FULL))[number.field]:.2f} µs." in text
    assert "overhead added to a time" in text
    assert "Not measured yet" not in text
    assert (number.page, number.run_id, number.raw) == ("calibration/full", FULL.name, "checks.jsonl")
    assert f"{FULL.name} ({number.raw_sha256[:16]})" in text, "the runs of a page stand below it"
    assert warnings == ""


def test_a_number_that_a_calibration_does_not_have_is_refused(build):
    for name, said in (
        ("full::none:.2f", "no calibration of depth 'full' is published"),
        ("::a:b", "taken as in page"),
    ):
        _, numbers, warnings = build(f"It takes {{glue:text}}`calibration/{name}` µs.")
        assert numbers == []
        assert said in warnings


def test_the_method_chapter_shows_forked_against_fresh_where_it_is_measured(build, tmp_path):
    text, _, warnings = build(FORKED)
    assert text == "Chapter Not measured yet: no calibration of depth forks is published."
    folder = tmp_path / "published" / "calibration" / "made-up"
    shutil.copytree(FULL, folder)
    config = paths.read_json(folder / "config.json") | {"depth": "forks", "blocks": 5, "each": 2, "run_id": "made-up"}
    paths.write_json(folder / "config.json", config)
    latencies_ms = {"forked": (20.0, 20.2), "fresh": (20.0, 21.0)}
    lines = [
        {"check": forks.CHECK, "start": way, "block": block, "round": 0, "latency_ms": latency_ms * (1 + block / 100)}
        for way, pair in latencies_ms.items()
        for block in range(5)
        for latency_ms in pair
    ]
    (folder / "checks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    paths.write_json(folder / "summary.json", studies.instrument().summarise(folder))
    text, numbers, warnings = build(FORKED)
    assert warnings == ""
    assert {number.run_id for number in numbers} == {"made-up"}
    assert "in 5 blocks with 10 processes of each kind" in text
    assert "is 0.980 times that of fresh ones, with a 95 % interval from 0.980 to 0.980: SAME." in text
    assert "spread by 0.70% and fresh ones by 3.45%. The ratio of the two is 0.20," in text
    assert "to 0.20: LESS. From block to block, the median of forks varies by 1.55%, and that of fresh" in text
    assert len(numbers) == FORKED.count("{glue:text}")
