"""From a run with a profile in it to the file."""

from __future__ import annotations

import json

import batch_runs
import pytest
from typer.testing import CliRunner

from distilbench import paths
from distilbench.anomaly import gather, records, report
from distilbench.cli.main import app
from distilbench.errors import RunError
from distilbench.runs import verify
from distilbench.runs.folder import Run


@pytest.fixture
def run(this_machine) -> Run:
    return batch_runs.finished_run()


def test_it_holds_what_every_process_said(run):
    content = gather.gather(run)
    assert (content.run_id, content.profiling_run_id) == (run.run_id, f"{run.run_id}/profiling")
    assert (content.study, content.profile, content.device, content.start) == ("batches", "ci", "cpu", "fresh")
    assert (content.model, content.model_source) == ("imagined", "random")
    assert content.software["torch"] == run.env["packages"]["torch"]
    assert [size.batch_size for size in content.sizes] == [1, 2, 3, 4]
    four = content.sizes[3]
    assert [(one.repetition, one.latency_ms) for one in four.processes] == [(0, 18), (1, pytest.approx(18.18))]
    assert (four.variant, four.length_policy, four.state) == ("sdpa", "fixed-16", "ok")
    assert (four.profiled.repetitions, four.profiled.forward_ms) == ([0], [18.0])
    product, gelu = four.profiled.operators
    assert (product.operator, product.calls, product.ms) == ("aten::addmm", 6, [14.0])
    assert (gelu.operator, gelu.ms, gelu.shapes) == ("aten::gelu", [1.0], None)
    assert product.shapes[0].dims == [[4, 64], [64, 64]]


def test_of_a_gpu_the_kernels_count():
    record = batch_runs.profiled(_cell(4), 0, on_gpu=True)
    product = gather._profiled([record], on_gpu=True).operators[0]
    assert product.ms == [7.0]
    assert [(one.kernel, one.ms) for one in product.kernels] == [("gemm", 7.0)]


def test_an_operator_that_a_process_did_not_call_took_it_no_time():
    one, two = batch_runs.profiled(_cell(4), 0), batch_runs.profiled(_cell(4), 1)
    two = two.model_copy(update={"operators": two.operators[:1]})
    gelu = gather._profiled([one, two], on_gpu=False).operators[1]
    assert gelu.ms == [1.0, 0.0]


def _cell(size: int):
    from distilbench import studies
    from distilbench.measurements.sweep.measure import design

    return next(
        cell for cell in design.grid(studies.resolve("batches", {"profile": "ci"}).params) if cell.batch_size == size
    )


def test_a_run_without_a_profile_says_so(finished_run):
    content = gather.gather(finished_run)
    assert content.profiling_run_id is None
    assert {(size.profiled, size.profiled_reason) for size in content.sizes} == {(None, gather.NO_PROFILE)}


def test_forked_processes_and_their_threads_are_noted(run):
    lines = [json.loads(line) for line in run.raw.read_text().splitlines()]
    said = {"start": "forked", "num_threads": 2, "threads_used": 2}
    run.raw.write_text("".join(json.dumps(line | said) + "\n" for line in lines))
    content = gather.gather(run)
    assert (content.start, content.num_threads) == ("forked", 2)
    assert {size.threads_used for size in content.sizes} == {2}


def test_a_run_in_which_nothing_was_measured_is_refused(run):
    run.raw.write_text("")
    with pytest.raises(RunError, match="no measured repetition: resume it first"):
        gather.gather(run)


def test_a_file_that_does_not_follow_from_its_run_is_found(run, monkeypatch):
    assert gather.problems(run) == [], "there is none"
    report.write_of(run)
    assert gather.problems(run) == []
    file = run.folder / records.NAME
    content = paths.read_json(file)
    content["sizes"][0]["processes"][0]["latency_ms"] *= 2
    paths.write_json(file, content)
    (found,) = gather.problems(run)
    assert found.startswith("batch_profile.json: sizes[0]: processes[0]: latency_ms says")
    monkeypatch.setattr(verify, "problems", lambda folder: [])  # the processes of this run are made up
    said = CliRunner().invoke(app, ["verify", "run", run.run_id])
    assert found in said.output
    assert said.exit_code == 1
    run.raw.write_text("")
    assert "no measured repetition" in gather.problems(run)[0]


def test_file_and_report_are_written_into_the_run(run):
    content, analysis = report.write_of(run)
    assert records.read(run.folder / records.NAME) == content
    assert "profile ci" in analysis.no_verdict
    text = (run.folder / report.NAME).read_text()
    assert "This run cannot say which batch sizes deviate" in text
    assert "| 4 | 18.09 |" in text
    (curve,) = analysis.curves
    assert curve.per_sample_ms == pytest.approx(2, rel=0.01)
