"""Runs that hold what another kind measured: made, resumed, checked and shown as one."""

from __future__ import annotations

import json
import sys
from typing import Literal

import pytest
import section_kind
import synthetic
from typer.testing import CliRunner

from distilbench import paths, studies
from distilbench.cli.main import app
from distilbench.errors import ParameterError, RunError
from distilbench.execution import jobs, notebooks
from distilbench.harness import steps
from distilbench.machine import environment
from distilbench.measurements.evaluation import kind as evaluation
from distilbench.measurements.evaluation.params import EvaluationParams
from distilbench.measurements.sweep.params import DistilbertParams
from distilbench.publication import provenance, publish
from distilbench.publication.claims import model, trial
from distilbench.report import glue, load
from distilbench.runs import find, parameters, verify
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Count


class BothParams(DistilbertParams):
    """The sweep, and in a section the toy."""

    SECTIONS = ("toy",)
    study: Literal["distilbert"] = "distilbert"
    toy_repetitions: Count = 3
    toy_weight: float = 2.5


@pytest.fixture
def both(monkeypatch, this_machine):
    """The parameters of a study that measures two kinds."""
    monkeypatch.setitem(sys.modules, section_kind.MODULE, section_kind)
    monkeypatch.setitem(studies.STUDIES, "distilbert", BothParams)
    return synthetic.resolved()


@pytest.fixture
def started(both) -> Run:
    return studies.start(both)


def measured(run: Run, resolved) -> Run:
    section, its = studies.section(run, resolved, "toy")
    steps.measure_run(section, its)
    return section


@pytest.fixture
def finished(both, finished_run) -> Run:
    """A finished synthetic run of the sweep that got its section."""
    config = finished_run.config | {"sections": ["toy"]}
    paths.write_json(finished_run.folder / "config.json", config)
    for name, (its, kind) in studies.sections(both).items():
        find._fill(finished_run.section(name, kind), its, ())
    measured(finished_run, both)
    return finished_run


# ------------------------------------------------------------------ parameters


def test_a_section_has_what_the_study_says_of_it_and_else_what_it_says_of_the_whole(both):
    ((its, kind),) = studies.sections(both).values()
    assert kind is section_kind.MEASUREMENT
    assert (its.params.repetitions, its.params.weight, its.params.seed) == (3, 2.5, both.params.seed)
    assert its.params.study == "distilbert"
    given = studies.sections(synthetic.resolved(toy_weight=4.0))["toy"][0]
    assert (given.params.weight, given.origins["weight"]) == (4.0, "given")
    assert given.design_hash != its.design_hash


@pytest.mark.parametrize("profile", parameters.PROFILES)
@pytest.mark.parametrize("study", [name for name, params in studies.STUDIES.items() if params.SECTIONS])
def test_every_profile_of_a_study_has_sections_that_can_be_measured(study, profile):
    found = studies.sections(studies.resolve(study, {"profile": profile}))
    assert list(found) == list(studies.STUDIES[study].SECTIONS)
    assert all(kind.cells(its.params) for its, kind in found.values())


def test_a_value_that_is_none_for_the_section_is_refused_before_a_folder_is_made(both, tmp_path):
    with pytest.raises(ParameterError, match="section toy of study distilbert: device"):
        studies.start(synthetic.resolved(device="cuda:0", source="random"))
    assert not (tmp_path / "results").exists()


def test_a_kind_that_the_study_does_not_measure_has_no_section(both, started):
    assert studies.section(started, both, "sweep") == (started, both)
    with pytest.raises(RunError, match="does not measure 'profiling'; it measures: sweep, toy"):
        studies.section(started, both, "profiling")


def test_the_notebooks_that_measure_are_told_from_those_that_prepare(both, monkeypatch):
    monkeypatch.setattr(studies, "chain", lambda study: ["text", "measure", "toy", "show"])
    assert studies.preparing_notebooks("distilbert") == ["text"]
    assert studies.measuring_notebook("distilbert") == "measure"
    assert studies.section_notebooks("distilbert") == ["toy"]
    monkeypatch.setitem(studies.STUDIES, "distilbert", DistilbertParams)
    assert studies.preparing_notebooks("distilbert") == ["text", "measure"]
    assert (studies.measuring_notebook("distilbert"), studies.section_notebooks("distilbert")) == ("toy", [])


# ------------------------------------------------------------------ states


def test_a_run_is_made_with_its_sections_and_is_unfinished_while_one_is(both, started):
    (section,) = started.sections
    assert section.run_id == f"{started.run_id}/toy"
    assert section.config["parameters"]["study"] == "distilbert"
    assert section.config["kind"] == "toy"
    assert [run.run_id for run in find.own_runs()] == [started.run_id], "a section is no run of its own"
    assert section.resume_command == started.resume_command
    assert started.status["state"] == "pending"
    started.set_status("ok")
    started.require_ok()  # of its own cells
    assert (started.status["state"], started.status["message"]) == ("pending", "toy: pending")
    assert studies.start(both).run_id == started.run_id, "what is unfinished is resumed"
    measured(started, both)
    assert started.status["state"] == "ok"
    assert studies.start(both).run_id != started.run_id


def test_it_is_finished_with_its_last_section(both, finished):
    assert finished.is_finished
    (finished.folder / "toy" / "summary.json").unlink()
    assert not finished.is_finished
    with pytest.raises(RunError, match="has no summary"):
        load.choose(synthetic.resolved(run_id=finished.run_id).params)
    assert "toy" not in load.limitations([finished]).to_string(), "the notebook before the section's shows them too"


def test_a_section_that_somebody_measures_keeps_others_from_the_run(both, started):
    assert not started.in_use
    with started.section("toy").held():
        assert started.in_use
        assert "another process works on it" in started._why_not_here()


def test_a_section_goes_on_where_it_was_and_on_no_other_machine(both, started, this_machine):
    section, _ = studies.section(started, both, "toy")
    this_machine["cpu"]["model"] = "a compute node"  # made on a login node, measured on another
    studies.section(started, both, "toy")
    assert section.env["cpu"]["model"] == "a compute node"
    assert environment.capture()["cpu"]["model"] == "a compute node"
    section.set_status("running")  # a kill may leave what was measured in no record yet
    studies.section(started, both, "toy")
    this_machine["cpu"]["model"] = "a third machine"
    with pytest.raises(RunError, match=r"begun in another environment: cpu.*a compute node"):
        studies.section(started, both, "toy")


def test_a_section_takes_what_its_run_measured_before(both, finished_run, monkeypatch):
    follow = evaluation.MEASUREMENT.follow
    unsaid = parameters.Resolved(EvaluationParams(source="embedded"), {"batch_size": "default"})
    took = follow(unsaid, finished_run)
    assert took.params.batch_size == 4, "18 ms for four, 12 for one"
    assert took.origins["batch_size"] == f"the best one of run {finished_run.run_id}"
    given = parameters.Resolved(EvaluationParams(source="embedded", batch_size=2), {"batch_size": "given"})
    assert follow(given, finished_run) is given
    (finished_run.folder / "summary.json").unlink()
    assert follow(unsaid, finished_run) is unsaid


def test_a_section_that_was_begun_with_another_design_is_not_resumed(both, started):
    section, _ = studies.section(started, both, "toy")
    section.set_status("running")
    other = synthetic.resolved(toy_weight=9.0)
    with pytest.raises(RunError, match=r"has another design .*weight: 2.5 there, 9.0 now"):
        studies.section(started, other, "toy")


# ------------------------------------------------------------------ what is read from it


def test_verify_computes_the_sections_again_too(finished):
    assert verify.problems(finished.folder) == []
    file = finished.folder / "toy" / "summary.json"
    paths.write_json(file, paths.read_json(file) | {"note": "spoilt"})
    (problem,) = verify.problems(finished.folder)
    assert problem.startswith("toy: summary.json: note says 'spoilt'")
    (finished.folder / "toy" / "config.json").write_text("{")
    assert any("toy" in problem for problem in verify.problems(finished.folder))


def test_numbers_of_a_section_have_its_name_and_come_from_raw_files(finished):
    assert glue.values(finished)["toy-one-toy_ms"] == 7.5
    assert glue.mark_of(finished, "toy-one-toy_ms") is None
    file = finished.folder / "toy" / "summary.json"
    file.write_text(json.dumps(paths.read_json(file) | {"cells": []}))
    assert "toy-one-toy_ms" not in glue.values(finished)
    assert provenance.values_from_raw(finished)["toy-one-toy_ms"] == 7.5


def test_it_is_shown_with_its_sections(finished):
    shown = CliRunner().invoke(app, ["show", finished.run_id]).output
    assert "toy:" in shown
    assert "2 of 2 cells were measured." in shown
    assert load.limitations([finished])["run"].nunique() == 2
    checked = CliRunner().invoke(app, ["verify", "run", finished.run_id]).output
    assert f"{finished.run_id}/toy: 6 repetitions computed again" in checked
    (finished.folder / "toy" / "summary.json").unlink()
    paths.write_json(finished.folder / "toy" / "status.json", {"state": "failed", "message": "no disk", "cells": {}})
    assert "resume" in CliRunner().invoke(app, ["show", finished.run_id]).output


def test_doubts_of_a_section_are_said_with_its_name(both, finished):
    summary = finished.section("toy").summary
    summary["cells"][0]["state"] = "pending"
    paths.write_json(finished.folder / "toy" / "summary.json", summary)
    said = CliRunner().invoke(app, ["show", finished.run_id, "--doubts"]).output
    assert "- toy: one: not measured (pending)" in said


def test_what_is_nobodys_business_leaves_the_sections_too(both, finished, tmp_path):
    section = finished.section("toy")
    paths.write_json(section.folder / "env.json", section.env | {"slurm": {"SLURM_JOB_USER": "eve"}})
    (section.folder / "work").mkdir()
    (section.folder / "work" / "scratch").write_text("")
    publish._copy(finished, copy := tmp_path / "copy")
    names = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    assert "toy/toy.jsonl" in names
    assert not any("work" in name or ".lock" in name for name in names)
    publish._scrub(finished.folder)
    assert section.env["slurm"] == {}


def test_a_claim_may_be_about_a_section(both, finished):
    said = {"id": "toys", "claim": "A toy takes 1 to 9 ms.", "source": "requirement document 001", "section": "toy"}
    said |= {"study": "distilbert", "hardware": {"device": "cpu"}}
    rule = {"rule": "value", "of": {"number": "toy_ms"}, "expected": {"at_least": 1, "at_most": 9}}
    claim = model.Claim(**said, test=rule)
    assert list(model._unknown(claim, [])) == []
    tests = trial.try_claim(claim, [finished]).tests
    assert [(one.run.run_id, one.n) for one in tests] == [(f"{finished.run_id}/toy", 3)]
    other = claim.model_copy(update={"section": "profiling"})
    assert list(model._unknown(other, [])) == ["study 'distilbert' has no section 'profiling'."]
    outcome = trial.try_claim(other, [finished])
    assert outcome.verdict == "CANNOT BE TESTED HERE"
    assert "does not measure 'profiling'" in next(iter(outcome.reasons))


# ------------------------------------------------------------------ on a cluster


def test_the_chain_measures_sections_on_a_node_like_those_of_the_parts(started):
    asked = jobs.Options(tasks=["--gres=gpu:1"], others=["--mem=1G"])
    chained = {job.name: job for job in jobs.chain(started, [0], asked, ingest=True, sections=True)}
    assert list(chained) == ["ingest", "measure", "gather", "sections", "analyse", "book", "account"]
    assert "--gres=gpu:1" in chained["sections"].flags
    assert "--mem=1G" not in chained["sections"].flags
    assert chained["sections"].after == ("gather", "afterok")
    assert chained["analyse"].after == ("sections", "afterok")
    assert chained["sections"].variables["STEP"] == "sections"


def test_the_job_of_the_sections_executes_their_notebooks(started, monkeypatch):
    executed = []
    monkeypatch.setattr(studies, "chain", lambda study: ["text", "measure", "toy", "show"])
    monkeypatch.setattr(notebooks, "execute", lambda run, names: executed.append((run.run_id, names)))
    CliRunner().invoke(app, ["job", "sections", started.run_id], catch_exceptions=False)
    assert executed == [(started.run_id, ["toy"])]
