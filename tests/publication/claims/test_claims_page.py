"""The chapter on claims, the command, and whether what a built page says holds."""

from __future__ import annotations

import contextlib
import html
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from claimed import FASTER, claim_of, per_sentence, timed_run
from typer.testing import CliRunner

from distilbench import paths
from distilbench.cli.main import app
from distilbench.errors import ParameterError
from distilbench.publication import audit, provenance, publish
from distilbench.publication.claims import model, page, trial
from distilbench.runs import find

BELOW = {"rule": "value", "of": {"number": "latency_ms", "where": {"batch_size": 4}}, "expected": {"at_most": 0.1}}


@pytest.fixture(scope="module")
def outcomes() -> list[trial.Outcome]:
    """The committed claims before the published runs."""
    return page.current()


def test_every_claim_is_in_the_chapter_with_interval_and_run(outcomes):
    table, said = page.overview(), page.sections()
    for one in outcomes:
        assert f"](#claim-{one.claim.id}) | {{verdict}}`{one.claim.id}`" in table
        heading = one.claim.claim.rstrip(".").replace(" %", "\N{NO-BREAK SPACE}%")
        assert f"(claim-{one.claim.id})=\n\n## {heading}\n" in f"{table}\n\n{said}"
        for number in range(len(one.tests)):
            field = f"{one.claim.id}.{number}"
            assert f"{{verdict}}`{field}.measured` | {{verdict}}`{field}.verdict`" in said
        if not one.tests:
            assert one.takes in said
    assert "{doc}`cpu-random </studies/distilbert/cpu-random>`" in said


def test_what_the_published_runs_say(outcomes):
    """If a new run changes one of these, look at the chapter and its readings again."""
    found = {one.claim.id: one.verdict for one in outcomes}
    assert found["batch-4-against-2"] == "NOT REPRODUCED"
    assert found["batch-4-against-line"] == "NOT REPRODUCED"
    on_gpu = next(one for one in outcomes if one.claim.id == "mixed-precision-on-a-gpu")
    devices = {run.config["parameters"]["device"] for run in find.published_runs()}
    assert (on_gpu.verdict == "CANNOT BE TESTED HERE") or devices != {"cpu"}
    assert all(one.of_others for one in outcomes if one.tests), "no run of the claimed checkpoint is published yet"


def test_every_marked_name_is_known(outcomes):
    for field in re.findall(r"\{verdict\}`([^`]+)`", page.overview() + page.sections()):
        assert page.finding(field).text
    verdict, number = page.finding("batch-4-against-2"), page.finding("batch-4-against-2.0.measured")
    assert str(verdict) == "batch-4-against-2, of all tests below it"
    run = next(one.tests[0].run for one in outcomes if one.claim.id == "batch-4-against-2")
    assert str(number).endswith(f"of run {run.run_id}; raw.jsonl has SHA-256 {paths.sha256_file(run.raw)}")
    with pytest.raises(ParameterError, match="there is no verdict 'none'; there are: batch-4-against-2, "):
        page.finding("none")


def test_words():
    said = page.asked(claim_of())
    assert said == "throughput at batch size 4 over that at batch size 2; the claim expects 1.39, 5 % either way."
    said = page.asked(claim_of(test=BELOW | {"cells": {"variant": ["sdpa", "eager"]}}))
    assert said == "latency at batch size 4 (cells with variant sdpa or eager); the claim expects at most 0.1 ms."
    assert [page._number(value) for value in (0.12345, 12.345, 1234.5)] == ["0.123", "12.3", "1234"]
    assert page._source(claim_of(source="sanh2019distilbert")) == "{cite:t}`sanh2019distilbert`"
    assert page._unbroken("39 % faster") == "39\N{NO-BREAK SPACE}% faster"


# ------------------------------------------------------------------ the audit


@pytest.fixture
def as_recorded(monkeypatch) -> None:
    """Summaries are not computed again, which takes a second; `test_a_changed_raw_file_is_found` does it."""
    monkeypatch.setattr(provenance, "from_raw", contextlib.nullcontext)


def built(folder: Path, changed: str = "", text: str = "") -> Path:
    """A built chapter with everything that it marks; one field with another text."""
    marks = [
        f'<span class="db-claim" data-field="{one.field}" data-form="" data-page="claims" data-raw="{one.raw_sha256}" '
        f'title="x">{html.escape(text if one.field == changed else one.text)}</span>'
        for one in page.findings(page.current()).values()
    ]
    (folder / "claims.html").write_text("\n".join(marks))
    return folder


def test_a_built_chapter_is_computed_again(as_recorded, tmp_path):
    problems, count = page.problems(built(tmp_path))
    assert problems == []
    assert count == len(page.findings(page.current())) > 20


def test_the_audit_of_the_book_computes_the_claims_again(as_recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "problems", lambda page: [])  # pages are held against their runs elsewhere
    (built(tmp_path, "batch-4-against-2", "REPRODUCED") / "index.html").write_text("nothing")
    problems, count = audit.problems(tmp_path)
    assert "claims.html: batch-4-against-2 says 'REPRODUCED', the raw files give 'NOT REPRODUCED'" in problems
    assert count == len(page.findings(page.current()))


@pytest.mark.parametrize("field", ["batch-4-against-2", "batch-4-against-2.1.measured", "batch-4-against-2.1.verdict"])
def test_what_a_built_chapter_says_otherwise_is_a_difference(as_recorded, tmp_path, field):
    (problem,), _ = page.problems(built(tmp_path, field, "REPRODUCED"))
    right = re.escape(repr(page.finding(field).text))
    assert re.fullmatch(rf"claims.html: {field} says 'REPRODUCED'.*, the raw files give {right}.*", problem)


def test_what_a_built_chapter_lacks_or_has_too_many_of_is_a_difference(as_recorded, tmp_path):
    whole = built(tmp_path) / "claims.html"
    lines = whole.read_text().splitlines()
    whole.write_text("\n".join([*lines[1:], '<span class="db-claim" data-field="old" data-raw="">AMBIGUOUS</span>']))
    problems, _ = page.problems(tmp_path)
    assert problems[0].startswith("claims.html: batch-4-against-2 says nothing, the raw files give 'NOT REPRODUCED'")
    assert problems[1:] == ["claims.html: old says 'AMBIGUOUS', the raw files give nothing"]


def test_a_chapter_that_is_not_there_or_claims_that_cannot_be_read_are_differences(as_recorded, tmp_path, monkeypatch):
    assert page.problems(tmp_path) == ([f"{tmp_path / 'claims.html'} is missing: build the book again"], 0)
    built(tmp_path)
    monkeypatch.setattr(model, "file", lambda: tmp_path / "none.yml")
    (problem,), _ = page.problems(tmp_path)
    assert problem.startswith("claims.html: the claims cannot be judged again: there is no parameter file")


def test_a_changed_raw_file_is_found(tmp_path, monkeypatch):
    """The summary and the page stay as they were; only a process of a published run says something else."""
    for name in ("book/studies", "results/published", "params"):
        shutil.copytree(paths.repo_root() / name, tmp_path / name, symlinks=True)
    shutil.copy(paths.repo_root() / "book" / "references.bib", tmp_path / "book")
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    built(tmp_path)
    run = next(run for run in find.published_runs() if run.config["study"] == "distilbert")
    record = next(one for one in run.measured() if one.cell.endswith("fixed-32-b004") and one.pass_ == "timing")
    said = f'"throughput_samples_per_s":{record.throughput_samples_per_s},'
    run.raw.write_text(run.raw.read_text().replace(said, said.replace(":", ":2"), 1))
    problems, _ = page.problems(tmp_path)
    assert any(problem.startswith("claims.html: batch-4-against-2.0.measured says '1.28") for problem in problems)


# ------------------------------------------------------------------ the command


def called(*words: str) -> str:
    done = CliRunner().invoke(app, ["claims", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_command_prints_every_claim_and_what_one_would_take(outcomes):
    said = called()
    for one in outcomes:
        assert f"{one.verdict}{', by runs of another model or text' if one.tests else ''}: {one.claim.claim}" in said
    assert "what it would take: A full run on a GPU: `distilbench run distilbert --profile full --device cuda:0" in said
    assert "NOT REPRODUCED, less than claimed: 1.17 (1.13 to 1.22), n = 5, fixed-128, sdpa, run 2026" in said


@pytest.mark.usefixtures("this_machine")
def test_the_command_holds_the_claims_against_one_run(tmp_path, monkeypatch):
    sides = {side: {"number": "forward_ms", "where": {"batch_size": size}} for side, size in (("of", 4), ("to", 2))}
    entries = [FASTER, FASTER | {"id": "other", "study": "profile", "test": FASTER["test"] | sides}]
    (tmp_path / "claims.yml").write_text(yaml.safe_dump({"claims": entries}))
    monkeypatch.setattr(model, "file", lambda: tmp_path / "claims.yml")
    run = timed_run(per_sentence(1.39))
    said = called("--run", run.run_id)
    assert said.startswith("REPRODUCED: Batches of 4 are 39 %")
    assert f"{run.run_id}: profile ci: tiny random models" in said
    (told,) = json.loads(called("--run", "latest", "--json"))
    assert (told["id"], told["verdict"], told["tests"][0]["run"]) == ("four-against-two", "REPRODUCED", run.run_id)
    assert "takes" not in told
    (tmp_path / "claims.yml").write_text(yaml.safe_dump({"claims": entries[1:]}))
    assert called("--run", run.run_id) == f"no claim is about what run {run.run_id} measured\n"
    assert called().startswith("CANNOT BE TESTED HERE")


@pytest.mark.usefixtures("this_machine")
def test_a_test_without_an_interval_says_so(tmp_path):
    outcome = trial.try_claim(claim_of(), [timed_run(per_sentence(1.39), repetitions=2)])
    assert page.measured(outcome.tests[0]) == "1.39 (no interval)"
    said = "AMBIGUOUS, too few for an interval: 1.39 (no interval), n = 2"
    assert any(said in line for line in page.lines([outcome]))
