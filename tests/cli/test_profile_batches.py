"""`profile-batches`: an analysis of a file alone, and a run with its report as the answer."""

from __future__ import annotations

import json
from pathlib import Path

import batch_runs
import pytest
from batch_profiles import invented
from typer.testing import CliRunner

from distilbench.anomaly import records, report
from distilbench.cli.main import app
from distilbench.errors import DistilbenchError, ParameterError, RunError
from distilbench.execution import notebooks

ANSWER = "1 of 19 batch sizes deviates from linear scaling, all of them controlled for at 95 %."


@pytest.fixture
def source(tmp_path) -> Path:
    records.write(tmp_path / "mine" / "profile.json", invented({4: 0.85}))
    return tmp_path / "mine" / "profile.json"


def call(*words: object):
    return CliRunner().invoke(app, ["profile-batches", *map(str, words)])


def test_a_file_alone_is_analysed_with_the_report_beside_it(source):
    done = call("--analyse", source)
    assert done.exit_code == 0, done.output
    assert ANSWER in done.output
    assert "faster than" in done.output
    assert (source.parent / report.NAME).read_text().startswith("# Batch sizes against linear scaling")
    assert str(source.parent / report.NAME) in done.output


def test_programs_get_the_analysis(source):
    found = json.loads(call("--analyse", source, "--json").output)
    (curve,) = found["analysis"]["curves"]
    four = curve["sizes"][3]
    assert (four["batch_size"], four["found"]) == (4, "faster than linear")
    assert four["diagnosis"]["causes"][0]["operator"] == "aten::addmm"
    assert found["file"] == str(source)


@pytest.mark.parametrize(
    "more", [("--device", "cpu"), ("--output", "x.json"), ("-p", "seed=1"), ("--resume", "latest")]
)
def test_an_analysis_measures_nothing(source, more):
    done = call("--analyse", source, *more)
    assert isinstance(done.exception, ParameterError)
    assert "--analyse reads a file and measures nothing: leave out --" in str(done.exception)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    done = call("--analyse", tmp_path / "x.json")
    assert isinstance(done.exception, RunError)
    assert "is no profile of batch sizes: run_id: Field required" in str(done.exception)


@pytest.fixture
def measured(this_machine, monkeypatch):
    """In place of the notebooks: a run that they would leave, and what they were asked for."""
    asked, run = [], batch_runs.finished_run()

    def run_study(*given):
        asked.append(given)
        report.write_of(run)
        return run

    monkeypatch.setattr(notebooks, "run_study", run_study)
    return run, asked


def test_a_run_is_measured_with_what_was_given_and_ends_with_its_report(measured, tmp_path):
    run, asked = measured
    done = call(
        "--profile", "ci", "--device", "cpu", "--batch-sizes", "1,2,4,8,16", "--output", tmp_path / "a" / "f.json"
    )
    assert done.exit_code == 0, done.output
    given = {"profile": "ci", "device": "cpu", "batch_sizes": "1,2,4,8,16"}
    assert asked == [("batches", given, "", False, "")]
    assert "This run cannot say which batch sizes deviate" in done.output
    assert f"distilbench verify run {run.run_id}" in done.output
    assert records.read(tmp_path / "a" / "f.json") == records.read(run.folder / records.NAME)
    assert (tmp_path / "a" / report.NAME).read_text() == (run.folder / report.NAME).read_text().replace(
        records.NAME, "f.json"
    )


def test_a_run_that_did_not_end_well_is_no_success(measured):
    run, _ = measured
    run.set_status("failed", "a cell ran out of memory")
    done = call("--profile", "ci")
    assert str(run.folder / report.NAME) in done.output
    assert isinstance(done.exception, DistilbenchError)
    assert "ended as failed: a cell ran out of memory" in str(done.exception)
