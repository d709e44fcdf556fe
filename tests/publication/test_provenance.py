"""Numbers of the book: where each comes from, and whether the raw files still give it."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from distilbench import paths
from distilbench.errors import RunError
from distilbench.publication import audit, provenance, publish
from distilbench.report import glue

PAGE = "studies/distilbert/cpu-embedded.ipynb"
FIELD = "sdpa-fixed-32-b1-latency_ms"
PAGES = [str(page.relative_to(provenance.book_root())) for page in publish.pages()]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A copy of what the book's numbers come from."""
    for name in ("book", "results/published", "params"):
        shutil.copytree(
            paths.repo_root() / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("_build")
        )
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def claims_hold(monkeypatch) -> None:
    """The chapter on claims, which these books do not have, is tested in claims/test_claims_page.py."""
    monkeypatch.setattr(audit.claims, "problems", lambda built: ([], 0))


@pytest.fixture
def pages_hold(monkeypatch) -> None:
    """The published pages, which two tests look at, are not held against their runs again."""
    monkeypatch.setattr(publish, "problems", lambda page: [])


def test_a_number_says_where_it_comes_from():
    told = provenance.certify(PAGE, FIELD, ".1f")
    run = provenance.run_of(PAGE)
    assert told.text == f"{glue.values(run)[FIELD]:.1f}"
    assert told.raw_sha256 == paths.sha256_file(run.raw)
    assert str(told) == f"{FIELD} of run {run.run_id}; raw.jsonl has SHA-256 {told.raw_sha256}"


@pytest.mark.parametrize(
    ("page", "field", "form", "said"),
    [
        ("studies/distilbert/none.ipynb", FIELD, "", f"no page .*none.ipynb is published; there are .*{PAGE}"),
        (PAGE, "none", "", "carries no number 'none'"),
        (PAGE, "machine", ".1f", "cannot be written as '.1f'"),
    ],
)
def test_what_is_not_there_is_refused(page, field, form, said):
    with pytest.raises(RunError, match=said):
        provenance.certify(page, field, form)


@pytest.mark.parametrize("page", PAGES)
def test_raw_files_give_what_the_summary_says(page):
    run = provenance.run_of(page)
    assert provenance.values_from_raw(run) == glue.values(run)


# ------------------------------------------------------------------ the audit


def built(folder: Path, page: str = PAGE, field: str = FIELD, form: str = ".1f", **changed: str) -> Path:
    """A book of one page with one number, as bookext writes it."""
    told = provenance.certify(page, field, form)
    told = {"page": told.page, "field": field, "form": form, "raw": told.raw_sha256, "text": told.text} | changed
    named = " ".join(f'data-{name}="{told[name]}"' for name in ("page", "field", "form", "raw"))
    pages = folder / "html"
    pages.mkdir(exist_ok=True)
    (pages / "index.html").write_text(
        f'<p>It takes <span class="x db-number" {named}>{told["text"]}</span> ms <b>5</b>.</p>'
    )
    return pages


def test_a_true_book_passes(tmp_path):
    assert audit.problems(built(tmp_path)) == ([], 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text": "5.0"}, r"index\.html: '5\.0' \(sdpa-fixed-32-b1-latency_ms of .*\): the raw files give '6\.\d'"),
        ({"field": "none"}, "the raw files give no such number"),
        ({"raw": "0" * 64}, "its certificate names another raw.jsonl"),
    ],
)
def test_a_number_that_the_raw_files_do_not_give_is_named(tmp_path, pages_hold, changed, said):
    folder = built(tmp_path)
    text = (folder / "index.html").read_text()
    told = provenance.certify(PAGE, FIELD, ".1f")
    old = {"text": f">{told.text}<", "field": FIELD, "raw": told.raw_sha256}
    ((name, value),) = changed.items()
    (folder / "index.html").write_text(text.replace(old[name], f">{value}<" if name == "text" else value))
    problems, _ = audit.problems(folder)
    assert len(problems) == 1
    assert re.search(said, problems[0])


def test_the_source_in_a_caption_is_held_to_the_run(tmp_path, pages_hold):
    folder = built(tmp_path)
    told = provenance.certify_picture(PAGE, "fig-latency")
    assert told.source == f"run {told.run_id} (raw.jsonl {told.raw_sha256[:16]})"
    named = f'data-page="{PAGE}" data-field="fig-latency" data-raw="{told.raw_sha256}"'
    page = folder / "studies" / "page.html"
    page.parent.mkdir()
    page.write_text(f'<p>A plot. From <span class="db-source" {named}>{told.source}</span>.</p>')
    assert audit.problems(folder) == ([], 1), "a source is no number"
    for changed in (told.run_id, told.raw_sha256):
        page.write_text(page.read_text().replace(changed, "x" + changed[1:]))
        problems, _ = audit.problems(folder)
        assert len(problems) == 1
        assert re.search(rf"^studies/page\.html: .*fig-latency of .*: it was made of run {told.run_id}", problems[0])
        page.write_text(page.read_text().replace("x" + changed[1:], changed))


def test_a_changed_raw_value_is_found_and_the_number_named(tmp_path, pages_hold, checkout):
    """The median of one cell's latencies, changed in raw.jsonl."""
    folder = built(tmp_path)
    run = provenance.run_of(PAGE)
    lines = [json.loads(line) for line in run.raw.read_text().splitlines()]
    for line in lines:
        if line["cell"].endswith("fixed-32-b001") and line["pass"] == "timing":
            line["latency_ms"] *= 2
    run.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    problems, _ = audit.problems(folder)
    assert any(FIELD in problem and "the raw files give '1" in problem for problem in problems), problems


def test_a_changed_iteration_is_found_and_the_number_named(tmp_path, pages_hold, checkout):
    folder = built(tmp_path)
    run = provenance.run_of(PAGE)
    file = next((run.folder / "iterations").glob("*fixed-32-b001-00.parquet"))
    file.write_bytes(file.read_bytes() + b"x")
    problems, _ = audit.problems(folder)
    assert any(FIELD in problem and "cannot be computed again" in problem for problem in problems)


def test_a_typed_number_is_found(tmp_path, pages_hold, checkout):
    folder = built(tmp_path)
    chapter = checkout / "book" / "results.md"
    chapter.write_text(chapter.read_text() + "\nIt takes 12.3 ms.\n")
    problems, _ = audit.problems(folder)
    assert [p for p in problems if p.startswith("results.md: typed, not taken from a run") and "12.3 ms" in p]


def test_what_was_built_is_no_chapter(tmp_path, pages_hold, checkout):
    copy = checkout / "book" / "_build" / "html" / "_sources" / "results.md"
    copy.parent.mkdir(parents=True)
    copy.write_text("It takes 12.3 ms.\n")
    assert audit.problems(built(tmp_path)) == ([], 1)


def test_a_page_that_differs_from_its_run_is_found(tmp_path, checkout):
    """Also where the book shows none of what differs."""
    folder, page = built(tmp_path), checkout / "book" / PAGE
    notebook = paths.read_json(page)
    notebook["cells"][0]["source"] = ["# Another title"]
    paths.write_json(page, notebook)
    problems, _ = audit.problems(folder)
    assert problems == [f"{PAGE}: its header is not what run {provenance.run_of(PAGE).run_id} says"]


def test_a_number_with_markup_in_html_is_read_as_it_shows(tmp_path):
    """What HTML must escape is no difference."""
    text = "a<b & c"
    mark = 'class="db-number" data-page="p" data-field="f" data-form="&gt;s" data-raw="0"'
    (tmp_path / "index.html").write_text(f"<span {mark}>{html.escape(text)}</span>")
    (shown,) = audit.shown_in(tmp_path)
    assert (shown.text, shown.form, shown.is_source) == (text, ">s", False)


def test_a_book_without_marked_numbers_is_no_proof(tmp_path, pages_hold):
    folder = built(tmp_path)
    (folder / "index.html").write_text("<p>6.8 ms</p>")
    problems, count = audit.problems(folder)
    assert count == 0
    assert "no marked number at all" in problems[0]
    told = provenance.certify_picture(PAGE, "fig-latency")  # nor is one with captions only
    named = f'data-page="{PAGE}" data-field="fig-latency" data-raw="{told.raw_sha256}"'
    (folder / "index.html").write_text(f'<p>A plot. From <span class="db-source" {named}>{told.source}</span>.</p>')
    problems, _ = audit.problems(folder)
    assert len(problems) == 1
    assert "no marked number at all" in problems[0]


def test_without_a_built_book_it_says_so(tmp_path):
    with pytest.raises(RunError, match=r"no built book in .*make book"):
        audit.problems(tmp_path)
