"""papermill alone, as a batch job calls it: `papermill notebooks/02_benchmark.ipynb OUTPUT -p device cpu`."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from measuring import stand_in_everywhere

from distilbench import paths, studies
from distilbench.runs import find, verify
from distilbench.runs.folder import Run
from distilbench.sources.models import load_model

PAPERMILL = str(Path(sys.executable).parent / "papermill")
NOTEBOOK = paths.repo_root() / "notebooks" / "02_benchmark.ipynb"
COMPLETE = {
    *("config.json", "env.json", "data.json", "model.json", "status.json", "raw.jsonl", "iterations"),
    *("label_mappings.json", "predictions.parquet", "summary.json", "run_summary.md", "notebooks"),
}


@pytest.fixture
def papermill(tmp_path):
    """Executes papermill in the ci profile from a folder that is not the checkout, with stdout sent to a file."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def execute(*words: str) -> subprocess.CompletedProcess:
        env = os.environ | {"DISTILBENCH_PROFILE": "ci", "DISTILBENCH_CACHE": str(tmp_path / "cache")}
        with (tmp_path / "stdout").open("w") as stdout:
            command = [PAPERMILL, str(NOTEBOOK), *words]
            return subprocess.run(
                command, cwd=elsewhere, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
            )

    return execute


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> None:
    """For what is not about numbers: the worker is a stand-in."""
    for name, value in stand_in_everywhere(tmp_path / "stand-in").items():
        monkeypatch.setenv(name, value)


def only_run(tmp_path: Path) -> Run:
    (run,) = find.all_runs(tmp_path / "results" / "distilbert")
    return run


def test_a_call_without_an_output_path_leaves_a_whole_run(papermill, stand_in, tmp_path):
    """What real workers leave in a kernel of papermill: tests/cli/test_main.py."""
    done = papermill("-p", "device", "cpu", "-p", "repetitions", "1", "-p", "batch_sizes", "[4]")
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert run.status["state"] == "ok"
    assert {file.name for file in run.folder.iterdir() if file.name != ".lock"} == COMPLETE
    assert not list((run.folder / "notebooks").iterdir()), "the executed notebook went to stdout only"
    assert verify.problems(run.folder) == []
    assert run.config["parameters"]["profile"] == "ci"
    assert run.config["origins"]["device"] == "given"
    assert not any((tmp_path / "elsewhere").iterdir()), "nothing is left where it was called from"
    executed = nbformat.read(tmp_path / "stdout", 4)
    assert not any(output.output_type == "error" for cell in executed.cells for output in cell.get("outputs", []))


def test_with_an_output_path_the_run_holds_the_same_notebook(papermill, stand_in, tmp_path, monkeypatch):
    """Called as on a site whose IPython has start-up code: its names are no parameters."""
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "00-mine.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("seed = 42\nproject = 'x'\nlength_policies = ['fixed-32']\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    done = papermill("out.ipynb", "-p", "batch_sizes", "[4]", "-p", "repetitions", "1", "-r", "run_id", "20261126_1")
    assert done.returncode == 0, done.stderr
    run, output = only_run(tmp_path), tmp_path / "elsewhere" / "out.ipynb"
    assert run.run_id == "20261126_1", "with -r a name is no number"
    given = {name for name, origin in run.config["origins"].items() if origin == "given"}
    assert given == {"batch_sizes", "repetitions", "run_id"}
    assert run.config["parameters"]["seed"] == 17
    (kept,) = (run.folder / "notebooks").iterdir()
    assert kept.name == output.name
    assert kept.samefile(output)
    assert kept.read_bytes() == output.read_bytes()
    assert "summary = steps.measure_run" in kept.read_text(), "the whole of it"
    assert run.status["state"] == "ok"
    assert run.config["parameters"]["batch_sizes"] == [4]
    assert len(run.measured()) == 2
    assert verify.problems(run.folder) == []


@pytest.mark.slow  # the worker and the summary by themselves: tests/measurements/sweep
def test_a_checkpoint_with_one_weight_that_is_nan_ends_as_invalid(papermill, tmp_path):
    """NaN counted as class 0, which gave an accuracy and the state `ok`."""
    model = load_model(source="random", size="tiny", vocab_size=191).module
    model.config.id2label, model.config.label2id = {0: "negative", 1: "positive"}, {"negative": 0, "positive": 1}
    model.classifier.weight.data[0, 0] = math.nan
    model.save_pretrained(tmp_path / "model")
    given = {"model_source": "local", "model_path": tmp_path / "model", "batch_sizes": "[4]", "repetitions": 1}
    pairs = [word for name, value in given.items() for word in ("-p", name, str(value))]
    done = papermill("out.ipynb", *pairs, "-p", "passes", "[timing]")
    assert done.returncode == 1
    run, cell = only_run(tmp_path), "sdpa-float32-longest-b004"
    assert f"ended as failed: not measured: {cell} (invalid)" in done.stderr
    assert run.status["cells"] == {cell: "invalid"}
    (found,) = paths.read_json(run.folder / "summary.json")["cells"]
    assert found["accuracy"] is found["latency_ms"] is None
    why = "the logits of 4 of 4 sentences are NaN or infinite (are all weights of the checkpoint finite?)"
    assert found["errors"] == [f"timing 0: invalid: {why}"]
    assert why in (tmp_path / "elsewhere" / "out.ipynb").read_text(encoding="utf-8"), "and the notebook says it"


def test_a_misspelt_parameter_stops_it_with_a_suggestion(papermill, tmp_path):
    done = papermill("out.ipynb", "-p", "devcie", "cpu")
    assert done.returncode != 0
    assert "unknown parameter 'devcie'; did you mean 'device'?" in done.stderr
    assert find.all_runs(tmp_path / "results" / "distilbert") == [], "nothing was begun"


def test_papermill_reads_a_name_as_a_number_unless_told_not_to(papermill, tmp_path):
    """With -r it does not: see above."""
    done = papermill("out.ipynb", "-p", "run_id", "20261126_1")
    assert done.returncode == 1, done.stderr
    assert "run_id: 202611261 is not allowed: " in done.stderr
    assert "with papermill, -r in place of -p" in done.stderr
    assert find.all_runs(tmp_path / "results" / "distilbert") == []


def test_papermill_lines_to_copy_have_an_output_path():
    """In a terminal papermill refuses a call without one."""
    for file in ("README.md", "book/reproduce.md", "book/cluster.md"):
        for line in (paths.repo_root() / file).read_text(encoding="utf-8").splitlines():
            if line.startswith("papermill "):
                words = line.split()
                assert words[2].endswith(".ipynb"), line
                assert words[2].startswith("results/"), "which git ignores: anything else were uncommitted changes"


def test_the_notebook_is_part_of_the_chain():
    assert NOTEBOOK.stem in studies.chain("distilbert")
