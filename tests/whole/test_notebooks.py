"""The notebooks: their structure, and that they still give the outputs that are committed with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import batch_runs
import nbformat
import papermill
import pytest
from measuring import stand_in_everywhere

from distilbench import paths, studies

NOTEBOOKS = sorted((paths.repo_root() / "notebooks").glob("*.ipynb"))
SANITIZE = paths.repo_root() / "tests" / "nbval_sanitize.cfg"


def code_cells(notebook: Path) -> list:
    return [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]


def nbval(folder: Path, *notebooks: Path) -> subprocess.CompletedProcess:
    """Runs nbval in the ci profile on notebooks, as a test run of its own; no number that was measured is compared."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", f"--nbval-sanitize-with={SANITIZE}"]
    env = os.environ | {"DISTILBENCH_PROFILE": "ci", "DISTILBENCH_RESULTS": str(folder / "results")}
    env |= stand_in_everywhere(folder / "stand-in")
    return subprocess.run([*command, *map(str, notebooks)], capture_output=True, text=True, env=env, check=False)


def test_every_notebook_of_every_study_is_there():
    names = {name for study in studies.STUDIES for name in studies.chain(study)}
    assert names == {notebook.stem for notebook in NOTEBOOKS}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_structure(notebook):
    cells = nbformat.read(notebook, 4).cells
    assert cells[0].source.startswith("# "), "first a title"
    assert len(cells[0].source.splitlines()) >= 3, "and the question"
    assert "| **reads** |" in cells[1].source, "then inputs and outputs"
    assert cells[2].metadata.get("tags") == ["parameters"], "then the parameters"
    assert "studies.from_notebook(globals())" in cells[3].source, "which the next cell checks"
    assert "Takeaways" in cells[-1].source
    assert len(cells) <= 30
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        lines = cell.source.splitlines()
        assert len(lines) <= 15, f"logic belongs in the package: {lines[0]}"
        assert not any(line.lstrip().startswith(("def ", "class ", "try:", "!", "%")) for line in lines)
        assert not cell.source.rstrip().endswith(";"), "nbval does not honour the semicolon"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_annotated_and_known(notebook):
    inspected = papermill.inspect_notebook(str(notebook))
    model = studies.study_model(inspected["study"]["default"].strip('"'))
    for name, parameter in inspected.items():
        assert name in model.model_fields
        assert parameter["inferred_type_name"] != "None", f"{name} needs a type"
        assert parameter["help"], f"{name} needs a comment"
    assert {"study", "profile", "run_id"} <= set(inspected)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed_and_hold_no_path_of_a_machine(notebook):
    cells = code_cells(notebook)
    assert all(cell.execution_count for cell in cells), "executed by `make notebooks`"
    checked = [cell for cell in cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert checked, "at least one deterministic cell is compared"
    assert all(cell.outputs for cell in checked)
    outputs = json.dumps([cell.outputs for cell in cells])
    assert str(Path.home()) not in outputs
    assert str(paths.repo_root()) not in outputs
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


def test_notebooks_give_their_committed_outputs(tmp_path, this_machine):
    """All of them measure what they show, but for the one that shows what two others measure for its study."""
    batch_runs.finished_run(results_root=str(tmp_path / "results"))
    done = nbval(tmp_path, *NOTEBOOKS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_altered_output_is_noticed(tmp_path):
    """The comparison above is a real one: one changed digit of a committed output makes it fail."""
    notebook = nbformat.read(NOTEBOOKS[0], 4)
    cell = next(c for c in notebook.cells if "nbval-check-output" in c.metadata.get("tags", []))
    text = cell.outputs[0].text
    cell.source = f"print({text!r}, end='')"
    cell.outputs[0].text = ("8" if text[0] != "8" else "9") + text[1:]
    notebook.cells = [cell]
    altered = tmp_path / NOTEBOOKS[0].name
    nbformat.write(notebook, altered)
    done = nbval(tmp_path, altered)
    assert done.returncode == 1, done.stdout
    assert "Traceback" in done.stdout or "mismatch" in done.stdout
