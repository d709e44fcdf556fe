"""The nightly checks on made-up runs: what they find, what they cannot do and say so, and that they go on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nightly
import pytest
import synthetic
from measuring import checkout_with_notebooks
from nightly import NotDone

from distilbench import paths
from distilbench.cli import doctor
from distilbench.errors import DataError, DistilbenchError, HubError, RunError
from distilbench.execution import notebooks
from distilbench.runs.folder import Run
from distilbench.sources import texts as sources_texts


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with nothing published, in which the smoke run of the study is a made-up one."""
    root = checkout_with_notebooks(tmp_path / "checkout")
    monkeypatch.setenv("DISTILBENCH_ROOT", str(root))
    monkeypatch.delenv("CHECK_EXTERNAL", raising=False)
    return root


@pytest.fixture
def ten(make_run) -> Run:
    """A run of this machine with ten repetitions of each of its two cells."""
    return make_run("own", repetitions=10)


def published(run: Run, run_id: str) -> Run:
    """A copy of the run under another name, published."""
    folder = paths.published_root() / "distilbert" / run_id
    shutil.copytree(run.folder, folder)
    for name in ("config.json", "summary.json", "status.json"):
        paths.write_json(folder / name, paths.read_json(folder / name) | {"run_id": run_id})
    return Run(folder)


def alter(run: Run, name: str, **changed: object) -> None:
    paths.write_json(run.folder / name, paths.read_json(run.folder / name) | changed)


# ------------------------------------------------------------------ one step


def test_a_step_that_fails_becomes_its_row(capsys):
    def refuse() -> str:
        raise DistilbenchError("line 3: the sentence is empty")

    def break_down() -> str:
        raise ZeroDivisionError

    def leave() -> str:
        raise NotDone("no hub")

    rows = [nightly.attempt("text", "x", work) for work in (lambda: "fine", leave, refuse, break_down)]
    assert [(row.state, row.said) for row in rows] == [
        ("ok", "fine"),
        ("not done", "no hub"),
        ("FAILED", "line 3: the sentence is empty"),
        ("FAILED", "ZeroDivisionError"),
    ]
    said = capsys.readouterr()
    assert said.out.splitlines()[2:6] == [
        "--- text: x", "not done: no hub", "--- text: x", "FAILED: line 3: the sentence is empty"
    ]  # fmt: skip
    assert "Traceback" in said.err, "what nobody expected is shown whole"
    assert "the sentence is empty" not in said.err


# ------------------------------------------------------------------ text


@pytest.fixture
def fresh_machine(tmp_path, monkeypatch) -> None:
    """One that has seen no text yet."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))


def test_the_first_sight_of_a_text_is_said_and_recorded_and_no_success(fresh_machine):
    with pytest.raises(NotDone, match=r"tiny_reviews\.tsv: \d+ sentences, SHA-256 [0-9a-f]{64}: seen for the first"):
        nightly.text_unchanged("distilbert", "ci")
    assert nightly.text_unchanged("distilbert", "ci").startswith("tiny_reviews.tsv: ")


def test_a_text_that_changed_fails(fresh_machine, monkeypatch):
    with pytest.raises(NotDone):
        nightly.text_unchanged("distilbert", "ci")
    monkeypatch.setattr(sources_texts.TextSet, "content_sha256", lambda texts: "0" * 64)
    with pytest.raises(DataError, match="is not what it was"):
        nightly.text_unchanged("distilbert", "ci")


@pytest.mark.parametrize(("hub", "raised"), [("missing", NotDone), ("limited", NotDone), ("ok", HubError)])
def test_only_where_the_hub_is_silent_a_text_on_it_may_be_left_out(monkeypatch, hub, raised):
    def no_text(params):
        raise HubError("cannot get data set glue")

    monkeypatch.setattr(sources_texts, "load_texts", no_text)
    monkeypatch.setattr(doctor, "model_hub", lambda: (hub, "as the test says"))
    with pytest.raises(raised, match="cannot get data set glue"):
        nightly.text_unchanged("distilbert", "full")


# ------------------------------------------------------------------ runs


def test_a_run_is_computed_again(finished_run):
    assert nightly.computed_again(finished_run) == "6 repetitions computed again from their raw files, no difference"
    summary = paths.read_json(finished_run.folder / "summary.json")
    summary["cells"][0]["latency_ms"] += 1
    paths.write_json(finished_run.folder / "summary.json", summary)
    with pytest.raises(DistilbenchError, match=r"1 difference\(s\): summary.json: cells\[0\]: latency_ms says"):
        nightly.computed_again(finished_run)


def test_equal_runs_pass_a_slower_one_fails(checkout, ten):
    base = published(ten, "base")
    said = nightly.compared(base, ten)
    assert sum(int(part.split()[0]) for part in said.split(", ")) == 2
    assert "SLOWER" not in said
    synthetic.slowed(ten, 1.5)
    with pytest.raises(DistilbenchError, match=r"2 of 2 cells SLOWER: sdpa-.*, sdpa-"):
        nightly.compared(base, ten)
    assert "2 FASTER" in nightly.compared(ten, base)


def test_other_machines_and_other_texts_are_not_compared_and_named(checkout, ten):
    base = published(ten, "base")
    alter(base, "data.json", content_sha256="0" * 64)
    env = paths.read_json(base.folder / "env.json")
    alter(base, "env.json", host=env["host"] | {"name": "another"})
    with pytest.raises(NotDone, match=r"they differ in host, data\.json content_sha256 \(distilbench compare base own"):
        nightly.compared(base, ten)


def test_too_few_repetitions_judge_nothing_which_is_said(checkout, make_run):
    run = make_run("two")
    with pytest.raises(NotDone, match=r"no cell can be judged: 2 AMBIGUOUS; 2 repetitions: no interval"):
        nightly.compared(published(run, "base"), run)


def test_runs_without_a_common_cell_are_not_compared(checkout, make_run):
    with pytest.raises(NotDone, match="no measured cell in common"):
        nightly.compared(published(make_run("one", batch_sizes=[1]), "base"), make_run("two", batch_sizes=[2]))


def smoke_runs_are(monkeypatch, make) -> list[tuple]:
    """Puts a made-up run in the place of the smoke run; returns the calls."""
    calls = []

    def run_study(study, given, **options):
        calls.append((study, given, options))
        return make()

    monkeypatch.setattr(notebooks, "run_study", run_study)
    monkeypatch.setattr(nightly, "text_unchanged", lambda study, profile: "the same")
    return calls


def made_smoke(run_id: str, **given: object) -> Run:
    return synthetic.finished_run(run_id, profile="smoke", min_cycles=1, **given)


def test_the_smoke_run_of_tonight_is_checked_and_compared(checkout, monkeypatch, this_machine):
    calls = smoke_runs_are(monkeypatch, lambda: made_smoke("tonight"))
    old = made_smoke("yesterday")
    published(old, "base")
    alter(old, "config.json", created="2001-01-01T00:00:00Z", sequence=None)
    rows = list(nightly.of_study("distilbert"))
    assert calls == [("distilbert", {"profile": "smoke"}, {"new": True})], "never half of yesterday's"
    assert [(row.step, row.of, row.state) for row in rows] == [
        ("text unchanged", "distilbert, smoke", "ok"),
        ("text unchanged", "distilbert, full", "ok"),
        ("smoke run", "distilbert", "ok"),
        ("computed again", "tonight", "ok"),
        ("compare", "tonight with published base", "not done"),
    ]
    assert "2 repetitions: no interval" in rows[-1].said


def test_a_full_run_of_this_machine_is_compared_as_well(checkout, monkeypatch, this_machine):
    smoke_runs_are(monkeypatch, lambda: made_smoke("tonight"))
    full = synthetic.finished_run("careful", profile="full", repetitions=10, control=False)
    published(full, "base")
    synthetic.slowed(full, 1.5)
    rows = [row for row in nightly.of_study("distilbert") if row.step == "compare"]
    assert [(row.of, row.state) for row in rows] == [
        ("tonight with published base", "not done"),
        ("careful with published base", "FAILED"),
    ]
    assert "6 of 6 cells SLOWER" in rows[1].said


def test_tests_and_unfinished_runs_are_never_the_newest(checkout, make_run):
    make_run("of-ci")
    synthetic.started_run("begun", profile="smoke", min_cycles=1)
    assert nightly.newest_of_each_profile("distilbert") == []
    made_smoke("whole")
    assert [run.run_id for run in nightly.newest_of_each_profile("distilbert")] == ["whole"]


def test_where_nothing_is_published_nothing_is_compared_which_is_said(checkout, monkeypatch, this_machine):
    smoke_runs_are(monkeypatch, lambda: made_smoke("tonight"))
    last = list(nightly.of_study("distilbert"))[-1]
    assert (last.step, last.state, last.said) == ("compare", "not done", "no run of this study is published")


def test_after_a_failed_smoke_run_there_is_nothing_of_tonight_to_compare(checkout, monkeypatch, ten):
    def fail():
        raise RunError("the kernel of 02_benchmark ended")

    smoke_runs_are(monkeypatch, fail)
    published(ten, "base")
    *_, smoke, compare = nightly.of_study("distilbert")
    assert (smoke.state, smoke.said) == ("FAILED", "the kernel of 02_benchmark ended")
    assert (compare.state, compare.said) == ("not done", "there is no run of tonight")


def test_a_smoke_run_that_did_not_measure_everything_fails(checkout, monkeypatch, this_machine):
    def half() -> Run:
        run = made_smoke("half")
        run.set_status("failed", "not measured: one cell (timeout)")
        return run

    smoke_runs_are(monkeypatch, half)
    smoke = next(row for row in nightly.of_study("distilbert") if row.step == "smoke run")
    assert smoke.state == "FAILED"
    assert "not measured: one cell (timeout)" in smoke.said


def test_a_study_that_the_package_does_not_know_fails_and_stops_nobody(checkout):
    rows = list(nightly.of_study("distilbrt"))
    assert {row.state for row in rows if row.step != "compare"} == {"FAILED"}
    assert "did you mean 'distilbert'" in rows[0].said


def test_every_published_run_is_computed_again(checkout, make_run, finished_run):
    published(finished_run, "good")
    bad = published(finished_run, "bad")
    bad.raw.unlink()
    rows = {row.of: row for row in nightly.of_published()}
    assert rows["published good"].state == "ok"
    assert rows["published bad"].state == "FAILED"
    assert "raw.jsonl is missing" in rows["published bad"].said


def test_published_calibrations_are_computed_again(monkeypatch):
    """The real ones of this checkout."""
    (row, *_) = [row for row in nightly.of_published() if row.of.startswith("calibration ")]
    assert row.state == "ok"
    monkeypatch.setattr(nightly.verify, "problems", lambda folder: ["summary.json says 1, computed again it is 2"])
    with pytest.raises(DistilbenchError, match="computed again it is 2"):
        nightly.computed_again(Run(Path("anywhere")))


# ------------------------------------------------------------------ the book


@pytest.fixture
def pages(checkout) -> Path:
    """A built book of one page in the checkout."""
    html = checkout / "book" / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text('<a href="#top"></a><p id="top"><a href="http://127.0.0.1:9/"></a></p>')
    return html


def test_the_book_is_built_and_its_numbers_and_links_are_followed(pages, monkeypatch):
    monkeypatch.setattr(nightly.building, "build", lambda: pages / "index.html")
    answers = {"problems": []}
    monkeypatch.setattr(nightly.audit, "problems", lambda html: (answers["problems"], 7))
    rows = list(nightly.of_book())
    assert [(row.step, row.of, row.state) for row in rows] == [
        ("book", "committed content", "ok"),
        ("numbers", "of the book", "ok"),
        ("links", "within the book", "ok"),
        ("links", "to other hosts", "not done"),
    ]
    assert [row.said for row in rows[1:]] == [
        "7 numbers computed again from raw files, no difference",
        "1 links of 1 pages lead somewhere",
        "1 links; CHECK_EXTERNAL=1 follows them",
    ]
    (pages / "index.html").write_text('<img src="gone.png">')
    answers["problems"] = ["index.html: '9' (cells of x): the raw files give '8'"]
    _, numbers, broken, _ = nightly.of_book()
    assert (numbers.state, numbers.said) == ("FAILED", f"1 difference(s): {answers['problems'][0]}")
    assert (broken.state, broken.said) == ("FAILED", "1 broken: index.html: gone.png: there is no such file")


def test_links_of_an_older_book_do_not_stand_for_one_that_could_not_be_built(pages, monkeypatch):
    def fail():
        raise DistilbenchError("jupyter-book could not build the book")

    monkeypatch.setattr(nightly.building, "build", fail)
    assert [(row.state, row.said) for row in nightly.of_book()] == [
        ("FAILED", "jupyter-book could not build the book"),
        ("not done", "the book could not be built"),
    ]


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (None, "ok", "1 of 1 answer"),
        (404, "FAILED", "1 of 1 gone: http://127.0.0.1:9/ (404)"),
        (403, "not done", "none of 1 gave a clear answer; cannot tell of http://127.0.0.1:9/: 403"),
    ],
)
def test_other_hosts_on_request(pages, monkeypatch, answer, state, said):
    monkeypatch.setenv("CHECK_EXTERNAL", "1")
    monkeypatch.setattr(nightly.check_links, "ask", lambda links: dict.fromkeys(links, answer) if answer else {})
    row = nightly.attempt("links", "to other hosts", lambda: nightly.links_to_others(pages))
    assert (row.state, row.said) == (state, said)


# ------------------------------------------------------------------ all of it


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("not done", 0), ("FAILED", 1)])
def test_the_table_and_the_exit_code(checkout, monkeypatch, capsys, state, code):
    monkeypatch.setattr(sys, "argv", ["nightly.py"])
    long = "a reason that is long enough to be folded: " + "word " * 60 + "end"
    rows = [nightly.Row("smoke run", "distilbert", "ok", "run x"), nightly.Row("book", "[content]", state, long)]
    asked = []
    monkeypatch.setattr(nightly, "night", lambda studies: asked.append(studies) or iter(rows))
    assert nightly.main() == code
    said = capsys.readouterr().out
    assert asked == [["distilbert"]]
    assert "[content]" in said
    assert " ".join(said.split()).count("word") == 60, "nothing is cut off"
    counts = {"ok": 1, "not done": 0, "FAILED": 0}
    counts[state] += 1
    assert said.endswith(f"{counts['ok']} ok, {counts['not done']} not done, {counts['FAILED']} failed\n")


def test_one_study_alone_and_a_misspelt_one(checkout, monkeypatch, capsys):
    monkeypatch.setattr(nightly, "night", lambda studies: iter(()))
    monkeypatch.setattr(sys, "argv", ["nightly.py", "distilbert"])
    assert nightly.main() == 0
    monkeypatch.setattr(sys, "argv", ["nightly.py", "distilbrt"])
    assert nightly.main() == 1
    assert "unknown study distilbrt. Studies: distilbert." in capsys.readouterr().err


def test_the_night_goes_through_studies_published_runs_and_book(monkeypatch):
    for name in ("of_study", "of_published", "of_book"):
        row = nightly.Row(name, "", "FAILED", "")
        monkeypatch.setattr(nightly, name, lambda *studies, row=row: iter([row]))
    assert [row.step for row in nightly.night(["a", "b"])] == ["of_study", "of_study", "of_published", "of_book"]
