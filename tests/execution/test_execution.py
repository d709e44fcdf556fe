"""The chain: a study's notebooks in order into one run folder, and what is said when one of them fails.

The notebooks here have one cell each; they run in real kernels.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from measuring import checkout_with_notebooks, small_design
from nbclient import NotebookClient

from distilbench import paths, progress, studies
from distilbench.errors import DataError, DistilbenchError, ParameterError, RunError, StorageError
from distilbench.execution import kernels, notebooks
from distilbench.runs import find

SAY = "import os\nprint('{0} of', run_id)\nprint('progress as', os.environ['DISTILBENCH_PROGRESS'])"
FAIL = "from distilbench.errors import DataError\nraise DataError('line 3: the sentence is empty')"


@pytest.fixture(autouse=True)
def log_lines(monkeypatch):
    """What the chain logs: (message, fields) per line; the log is put back as it was."""
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append((record.getMessage(), getattr(record, "fields", {})))

    monkeypatch.setattr(progress.log, "handlers", [Keep()])
    monkeypatch.setattr(progress.log, "propagate", False)
    before = progress.log.level
    progress.log.setLevel(logging.INFO)  # forgets what was said of an earlier level, as the attribute alone would not
    yield lines
    progress.log.setLevel(before)


@pytest.fixture
def checkout(tmp_path, monkeypatch, this_machine):
    """Makes a checkout of one's own notebooks the current one."""

    def make(**sources: str) -> None:
        monkeypatch.setenv("DISTILBENCH_ROOT", str(checkout_with_notebooks(tmp_path / "checkout", **sources)))

    return make


# ------------------------------------------------------------------ running


def test_the_notebooks_run_in_order_into_one_folder(checkout, log_lines, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_PROGRESS", "bar")
    checkout(b_first=SAY.format("first"), a_second=SAY.format("second"))
    run = notebooks.run_study("distilbert", {"profile": "ci"})
    messages = [message for message, _ in log_lines]
    assert messages == [
        f"run {run.run_id} of distilbert, profile ci",
        "notebook b_first",
        f"first of {run.run_id}",
        "progress as lines",
        "notebook a_second",
        f"second of {run.run_id}",
        "progress as lines",
    ]
    executed = sorted((run.folder / "notebooks").iterdir())
    assert [file.name for file in executed] == ["a_second.ipynb", "b_first.ipynb"]
    injected = nbformat.read(executed[0], 4).cells[1].source
    assert f'run_id = "{run.run_id}"' in injected
    assert f'results_root = "{run.folder.parent.parent}"' in injected
    assert os.environ["DISTILBENCH_PROGRESS"] == "bar", "as it was before"
    assert [run.run_id for run in find.all_runs(run.folder.parent)] == [run.run_id]


def test_a_file_of_the_users_named_like_a_module_does_not_reach_the_kernel(checkout, log_lines, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in (
        "random",
        "numpy",
    ):  # IPython puts the working directory between the two
        (mine / f"{name}.py").write_text("raise RuntimeError('this is mine')")
    monkeypatch.chdir(mine)
    here = "{'', str(pathlib.Path.cwd())} & {*sys.path}"
    checkout(one=f"import sys, pathlib, random, numpy\nprint('fine', {here})")
    notebooks.run_study("distilbert", {"profile": "ci"})
    assert log_lines[-1][0] == "fine set()"


def test_a_notebooks_own_error_is_raised_as_it_was_said(checkout):
    checkout(good="print('fine')", bad=FAIL, never="print('not reached')")
    with pytest.raises(DataError, match=r"^line 3: the sentence is empty$"):
        notebooks.run_study("distilbert", {"profile": "ci"})
    (run,) = find.all_runs(paths.results_root() / "distilbert")
    assert run.status["state"] == "failed"
    assert run.status["message"] == "bad: DataError: line 3: the sentence is empty"
    assert not (run.folder / "notebooks" / "never.ipynb").exists()
    assert "DISTILBENCH_PROGRESS" not in os.environ


def test_any_other_error_names_the_notebook_with_the_traceback(checkout):
    checkout(bad="1 / 0")
    with pytest.raises(DistilbenchError, match="bad failed with ZeroDivisionError: division by zero") as raised:
        notebooks.run_study("distilbert", {"profile": "ci"})
    (run,) = find.all_runs(paths.results_root() / "distilbert")
    executed = run.folder / "notebooks" / "bad.ipynb"
    assert str(raised.value).endswith(str(executed))
    assert "ZeroDivisionError" in executed.read_text()


def test_a_failure_that_the_sweep_has_recorded_is_not_overwritten(checkout):
    checkout(
        bad="from distilbench.runs import find\nrun = find.find(run_id, results_root)\n"
        "run.set_status('failed', 'the disk was full')\nraise ValueError('later')"
    )
    with pytest.raises(DistilbenchError, match="ValueError: later"):
        notebooks.run_study("distilbert", {"profile": "ci"})
    assert find.find("latest").status["message"] == "the disk was full"


def test_a_kernel_that_is_killed_is_said_once(checkout, caplog):
    checkout(bad="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RunError, match=r"the kernel of bad ended: .* To resume, repeat the command"):
        notebooks.run_study("distilbert", {"profile": "ci"})
    assert find.find("latest").status["state"] in find.UNFINISHED, "the next start goes on with it"
    assert {record.name for record in caplog.records} <= {"distilbench"}, "and not by the libraries as well"


@pytest.mark.parametrize(("kills", "likely"), [((3, 4), True), ((3, 3), False), ((None, None), False)])
def test_a_kernel_was_killed_for_memory_only_where_that_was_counted(checkout, monkeypatch, kills, likely):
    checkout(bad="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    counted = iter(kills)
    monkeypatch.setattr(notebooks.cgroups, "oom_kills", lambda *root: next(counted))
    with pytest.raises(RunError) as raised:
        notebooks.run_study("distilbert", {"profile": "ci"})
    assert ("for want of memory" in str(raised.value)) is likely


def test_a_notebook_that_papermill_cannot_write_is_a_storage_error(checkout, monkeypatch):
    import papermill

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    checkout(one="print(1)")
    monkeypatch.setattr(papermill, "execute_notebook", full)
    with pytest.raises(
        StorageError, match=r"cannot write .*notebooks/one\.ipynb: No space left on device.*free some space"
    ):
        notebooks.run_study("distilbert", {"profile": "ci"})
    status = find.find("latest").status
    assert (status["state"], "No space left" in status["message"]) == ("failed", True)


def test_a_run_that_was_removed_meanwhile_is_not_made_again(checkout, monkeypatch):
    import papermill

    def removed(*_, **__):
        shutil.rmtree(find.find("latest").folder)
        raise FileNotFoundError("output folder doesn't exist.")

    checkout(one="print(1)")
    monkeypatch.setattr(papermill, "execute_notebook", removed)
    with pytest.raises(StorageError, match=r"output folder doesn't exist\. What was"):
        notebooks.run_study("distilbert", {"profile": "ci"})
    assert find.own_runs() == []
    assert list(paths.results_root().glob("*/*")) == []


def test_a_run_that_another_process_works_on_is_left_alone(checkout):
    checkout(one="print('reached')")
    resolved = small_design(paths.results_root())
    run = studies.start(resolved)
    given = resolved.params.model_dump(mode="json") | {"run_id": run.run_id}
    with run.held(), pytest.raises(RunError, match=f"run {run.run_id} is being worked on by another process"):
        notebooks.run_study("distilbert", given)
    assert not list((run.folder / "notebooks").iterdir())


@pytest.fixture
def foreign_jupyter(tmp_path, monkeypatch):
    """A user and a site that have the kernel of another program, and start-up code and a configuration of IPython."""
    spec = {"argv": [str(tmp_path / "another" / "python"), "-f", "{connection_file}"], "language": "python"}
    startup = "seed = 42\nproject = 'x'\nimport builtins\nbuiltins.started_by = {!r}\n"
    for file, content in {
        "jupyter/kernels/python3/kernel.json": json.dumps(spec | {"display_name": "Python of a module"}),
        "ipython/profile_default/startup/00-mine.py": startup.format("start-up file"),
        "ipython/profile_default/ipython_config.py": "c.InteractiveShellApp.exec_lines = ['seed = 43; project = 1']\n"
        "c.InteractiveShell.ast_node_interactivity = 'none'  # a cell's last value is not shown",
        "startup.py": startup.format("PYTHONSTARTUP"),
        "json.py": "raise ImportError('a file of the working directory')",
    }.items():
        (tmp_path / "theirs" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs" / file).write_text(content)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "theirs" / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "theirs" / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "theirs" / "startup.py"))
    monkeypatch.chdir(tmp_path / "theirs")


def test_kernels_are_this_python_with_nothing_of_the_users(checkout, foreign_jupyter, log_lines):
    names = "seed, 'project' in globals(), hasattr(__builtins__, 'started_by')"
    checkout(one=f"import json, sys\nprint(sys.executable)\nprint({names})\nprint(get_ipython().ipython_dir)")
    run = notebooks.run_study("distilbert", {"profile": "ci"})
    python, found, folder = [message for message, fields in log_lines if fields.get("event") == "output"]
    assert python == sys.executable == paths.read_json(run.folder / "env.json")["python"]["executable"]
    assert found == "17 False False"
    assert not Path(folder).exists(), "its folder is gone with it"


def test_a_kernel_reads_no_configuration_wherever_it_is(foreign_jupyter):
    """A site's stands in /etc/ipython; here it stands where IPython looks first."""
    cell = nbformat.v4.new_code_cell("[name for name in ('seed', 'project') if name in globals()]")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, kernel_name="python3", kernel_manager_class=kernels.OwnKernels).execute()
    assert notebook.cells[0].outputs[0]["data"] == {"text/plain": "[]"}


# ------------------------------------------------------------------ parameters of a start


def test_a_start_takes_what_was_given(tmp_path):
    resolved = notebooks.resolve("distilbert", {"profile": "ci", "seed": 3}, results_root=str(tmp_path))
    assert (resolved.params.seed, resolved.params.results_root) == (3, str(tmp_path))
    assert resolved.origins["seed"] == "given"


def test_resuming_takes_the_runs_own_parameters(finished_run):
    resolved = notebooks.resolve("distilbert", {}, resume=finished_run.run_id[:20])
    assert resolved.design_hash == finished_run.config["design_hash"]
    assert resolved.params.run_id == finished_run.run_id
    assert resolved.params.results_root == str(finished_run.folder.parent.parent)


def test_resuming_refuses_parameters(finished_run):
    with pytest.raises(ParameterError, match=r"--resume .* run 2.*; seed, device cannot be given as well"):
        notebooks.resolve("distilbert", {"seed": 1, "device": "cpu"}, resume="latest")


def test_resuming_refuses_a_run_of_another_study(finished_run):
    config = finished_run.config | {"study": "palu"}
    paths.write_json(finished_run.folder / "config.json", config)
    with pytest.raises(RunError, match="is of study 'palu', not 'distilbert'"):
        notebooks.resolve("distilbert", {}, resume="latest")


# ------------------------------------------------------------------ progress


def test_output_is_cut_into_lines_and_progress_is_told_apart(log_lines):
    with progress.progress_stream() as stream:
        for piece in ("[1/2] sd", "pa batch 1\n\n", "plain ", "text \n[2/2] sdpa batch 2\n", "[ not progress ]\nunfin"):
            stream.write(piece)
            stream.flush()
    assert log_lines == [
        ("[1/2] sdpa batch 1", {"event": "progress", "done": 1, "total": 2}),
        ("plain text", {"event": "output"}),
        ("[2/2] sdpa batch 2", {"event": "progress", "done": 2, "total": 2}),
        ("[ not progress ]", {"event": "output"}),
    ]


def test_in_a_terminal_progress_is_a_bar(log_lines, monkeypatch):
    class RichHandler(logging.NullHandler):
        """What `set_up_log` installs for terminals, as far as the chain looks at it."""

    monkeypatch.setattr(progress.log, "handlers", [*progress.log.handlers, RichHandler()])
    with progress.progress_stream() as stream:
        stream.write("[ 3/18] one\n[ 4/18] two, about 2 min left\nplain\n")
        (task,) = stream.bar.tasks
        assert (task.completed, task.total, task.description) == (4, 18, "two, about 2 min left")
    assert log_lines == [("plain", {"event": "output"})], "the bar stands for the other lines"


def test_json_lines_can_be_read_back(monkeypatch):
    written = []
    progress.set_up_log("json", SimpleNamespace(write=written.append, flush=lambda: None, isatty=lambda: False))
    with progress.progress_stream() as stream:
        stream.write("[1/2] sdpa\n")
    line = json.loads("".join(written))
    assert (line["message"], line["done"], line["total"], line["level"]) == ("[1/2] sdpa", 1, 2, "info")


def test_a_parameter_that_came_later_than_the_run_has_its_default_in_notebooks_too(make_run, monkeypatch):
    """The ci profile says otherwise today; a run begun before it did is resumed as it was begun."""
    run = make_run()
    config = run.config
    del config["parameters"]["fresh_processes"]
    paths.write_json(run.folder / "config.json", config)
    given = []
    monkeypatch.setattr(notebooks, "_execute", lambda run, name, values, output: given.append(values))
    notebooks.execute(run, ["02_benchmark"])
    assert [values["fresh_processes"] for values in given] == [True]
    assert given[0]["run_id"] == run.run_id
    assert notebooks.resolve_again(run).params.fresh_processes
