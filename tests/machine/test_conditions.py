"""Which code goes on with a run: that which it was begun with, or which is declared to measure alike."""

from __future__ import annotations

import sys

import measuring_code
import pytest
import synthetic
import yaml

from distilbench import paths
from distilbench.errors import RunError
from distilbench.harness import steps
from distilbench.machine import code, conditions
from distilbench.runs import find
from distilbench.runs.folder import Run

OLD, OLDER = "a" * 64, "b" * 64


def test_the_measuring_code_is_the_one_that_the_declaration_is_about():
    declared = yaml.safe_load(conditions.ALIKE.read_text(encoding="utf-8"))
    assert declared["measuring_sha256"] == code.measuring_sha256(), (
        "a module of MEASURING changed. Does it still measure as before? Decide, and run `python "
        'scripts/measuring_code.py --alike "why"`, --unlike "why", or --replace (the former code was in no commit that '
        "others have); it rewrites distilbench/machine/measures_alike.yml"
    )
    hashes = [one["measuring_sha256"] for one in declared["alike"]]
    assert declared["measuring_sha256"] not in hashes
    assert len(set(hashes)) == len(hashes)
    assert all(len(one) == 64 for one in hashes)
    assert all(one["why"] for one in (*declared["alike"], *declared["not_alike"]))


@pytest.fixture
def run_of_older_code(this_machine) -> Run:
    """An unfinished run that was begun with other measuring code."""
    run = synthetic.started_run("mine")
    env = paths.read_json(run.folder / "env.json")
    paths.write_json(run.folder / "env.json", env | {"measuring_sha256": OLD})
    return run


def open_run() -> Run:
    return find.to_resume(synthetic.resolved(run_id="mine"))


def test_a_run_of_undeclared_code_is_refused(run_of_older_code, declare_alike):
    declare_alike(OLDER)
    with pytest.raises(RunError, match=f"code: '{OLD}' there, '{code.measuring_sha256()}' here"):
        open_run()
    assert run_of_older_code.record_code_change() == []
    assert "code_changes" not in paths.read_json(run_of_older_code.folder / "env.json")


def test_a_declaration_about_other_code_says_nothing_of_this_one(run_of_older_code, declare_alike):
    declare_alike(OLD, present=OLDER)
    with pytest.raises(RunError, match="another environment: code"):
        open_run()


def test_a_run_of_declared_code_is_gone_on_with_and_records_it_once(run_of_older_code, declare_alike, this_machine):
    declare_alike(OLDER, OLD)
    this_machine["packages"]["distilbench"] = "9.9.9"  # with a release its number changes, too
    run = open_run()
    assert run.folder == run_of_older_code.folder
    (message,) = run.record_code_change()
    assert message == "run mine was begun with other code (aaaaaaaa), declared to measure alike; env.json says why"
    assert run.record_code_change() == []
    env = paths.read_json(run.folder / "env.json")
    (change,) = env["code_changes"]
    assert change.keys() == {"at", "from", "to", "git", "why"}
    assert change["why"] == "only names changed"
    assert (change["from"], change["to"], env["measuring_sha256"]) == (OLD, code.measuring_sha256(), OLD)
    assert open_run().folder == run.folder, "what it began with is still what counts"


def test_other_conditions_count_as_before(run_of_older_code, declare_alike, this_machine):
    declare_alike(OLD)
    this_machine["packages"]["torch"] = "9.9.9"
    with pytest.raises(RunError, match=r"another environment: torch: .* there, '9.9.9' here") as caught:
        open_run()
    assert "code" not in str(caught.value)


def test_measuring_records_the_change_in_the_run(finished_run, declare_alike, capsys):
    env = paths.read_json(finished_run.folder / "env.json")
    paths.write_json(finished_run.folder / "env.json", env | {"measuring_sha256": OLD})
    declare_alike(OLD)
    paths.write_json(finished_run.folder / "ceilings.json", {"reason": "not measured"})
    steps.measure_run(finished_run, synthetic.resolved(), prepared=object())
    assert paths.read_json(finished_run.folder / "env.json")["code_changes"][0]["from"] == OLD
    assert "was begun with other code (aaaaaaaa)" in capsys.readouterr().out


# ------------------------------------------------------------------ the script


def rewritten(monkeypatch, *arguments: str) -> dict:
    monkeypatch.setattr(measuring_code, "commit_of", lambda sha256: "c0ffee")
    monkeypatch.setattr(sys, "argv", ["measuring_code.py", *arguments])
    measuring_code.main()
    assert conditions.ALIKE.read_text(encoding="utf-8").startswith("# Which versions")
    return yaml.safe_load(conditions.ALIKE.read_text(encoding="utf-8"))


def test_code_that_measures_alike_adds_its_predecessor(monkeypatch, declare_alike):
    declare_alike(OLDER, present=OLD)
    new = rewritten(monkeypatch, "--alike", "names")
    assert new["measuring_sha256"] == code.measuring_sha256()
    assert [one["measuring_sha256"] for one in new["alike"]] == [OLD, OLDER]
    assert new["alike"][0] == {"measuring_sha256": OLD, "commit": "c0ffee", "why": "names"}


def test_code_that_measures_otherwise_ends_all_of_them(monkeypatch, declare_alike):
    declare_alike(OLDER, present=OLD)
    new = rewritten(monkeypatch, "--unlike", "another clock")
    assert new["alike"] == []
    assert [(one["measuring_sha256"], one["why"]) for one in new["not_alike"]] == [
        (OLD, "another clock"), (OLDER, "another clock")
    ]  # fmt: skip


def test_code_that_nobody_has_is_replaced(monkeypatch, declare_alike):
    declare_alike(OLDER, present=OLD)
    assert [one["measuring_sha256"] for one in rewritten(monkeypatch, "--replace")["alike"]] == [OLDER]


def test_unchanged_code_is_left_alone(monkeypatch, declare_alike, capsys):
    declare_alike(OLD)
    before = conditions.ALIKE.read_bytes()
    with pytest.raises(SystemExit):
        rewritten(monkeypatch, "--alike", "again")
    assert conditions.ALIKE.read_bytes() == before
