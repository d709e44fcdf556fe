"""Runs a study: its notebooks in order, through papermill, into one run folder."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distilbench import errors, paths, studies
from distilbench.errors import DistilbenchError, ParameterError, RunError, StorageError
from distilbench.harness import preflight
from distilbench.machine import cgroups
from distilbench.progress import log_line, progress_stream
from distilbench.report import load
from distilbench.runs import find, parameters
from distilbench.runs.folder import Run


def resolve(study: str, given: dict[str, Any], resume: str = "", results_root: str = "") -> parameters.Resolved:
    """The parameters of a start: what was given, or those of the run to resume."""
    if not resume:
        return studies.resolve(study, given | ({"results_root": results_root} if results_root else {}))
    run = find.find(resume, results_root)
    if given:
        raise ParameterError(
            f"--resume takes the parameters of run {run.run_id}; {', '.join(given)} cannot be given as well"
        )
    if run.config["study"] != study:
        raise RunError(f"run {run.run_id} is of study {run.config['study']!r}, not {study!r}")
    return resolve_again(run)


def resolve_again(run: Run) -> parameters.Resolved:
    """The parameters that a run was started with, and where it is now."""
    return studies.resolve(run.config["study"], _started_with(run))


def _started_with(run: Run) -> dict[str, Any]:
    recorded = run.config["parameters"]
    fields = studies.study_model(run.config["study"]).model_fields.items()
    # a profile may say something else today of a parameter that came later than the run
    later = {name: field.default for name, field in fields if name not in recorded}
    place = {"run_id": run.run_id, "results_root": str(run.folder.parent.parent)}
    return later | recorded | place


def run_study(study: str, given: dict[str, Any], resume: str = "", new: bool = False, results_root: str = "") -> Run:
    """Executes the study's notebooks in order; each writes into the one run folder, which can be resumed."""
    resolved = resolve(study, given, resume, results_root)
    run = studies.start(resolved, new)
    if run.in_use:
        raise RunError(f"run {run.run_id} is being worked on by another process")
    log_line(f"run {run.run_id} of {study}, profile {resolved.params.profile}", run_id=run.run_id, event="run")
    execute(run, studies.chain(study))
    return run


def execute(run: Run, names: list[str]) -> None:
    """Executes notebooks of the chain into a run, with the parameters that it was started with; they check them."""
    values = _started_with(run)
    with _around_kernels():
        for name in names:
            log_line(f"notebook {name}", notebook=name, event="notebook")
            _execute(run, name, values, run.folder / "notebooks" / f"{name}.ipynb")


def analyse(study: str, run_ids: list[str], results_root: str = "") -> list[Run]:
    """Executes the analysis over runs that are finished; returns them."""
    given = {"run_ids": run_ids or None, "results_root": results_root or None}
    chosen = load.choose(studies.resolve(study, given).params)
    roots = {run.folder.parent.parent for run in chosen} - {paths.published_root()}
    if len(roots) > 1:
        raise RunError(f"runs of several results folders cannot be overlaid: {', '.join(map(str, sorted(roots)))}")
    values: dict[str, Any] = {
        "study": study,
        "profile": chosen[0].config["parameters"]["profile"],
        "run_ids": [run.run_id for run in chosen],
        "results_root": str(roots.pop()) if roots else results_root,
    }
    with _around_kernels():
        _execute(chosen[0], studies.analysis(study), values, analysis_of(chosen))
    return chosen


def analysis_of(chosen: list[Run]) -> Path:
    """Where the executed analysis of these runs goes; overlays are kept beside a run's own."""
    name = studies.analysis(chosen[0].config["study"])
    return load.output_folder(chosen) / "notebooks" / f"{name}{load.overlay_suffix(chosen)}.ipynb"


@contextmanager
def _around_kernels() -> Iterator[None]:
    """Asks the notebooks for progress lines, which are drawn here, and gives their IPython a folder of its own."""
    preflight.open_files()
    with tempfile.TemporaryDirectory() as folder:
        variables = {"DISTILBENCH_PROGRESS": "lines", "IPYTHONDIR": folder}
        before = {name: os.environ[name] for name in variables if name in os.environ}
        os.environ |= variables
        try:
            yield
        finally:
            for name in variables:
                os.environ.pop(name)
            os.environ |= before


def _execute(run: Run, name: str, values: dict[str, Any], output: Path) -> None:
    """One notebook, executed into a file; what it ends with becomes an error for people."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from distilbench.execution import kernels

    for library in ("papermill", "traitlets", "asyncio"):  # warnings of keys that other notebooks of the chain use,
        logging.getLogger(library).setLevel(logging.CRITICAL)  # tracebacks of a kernel that ends: said here, for people
    kills = cgroups.oom_kills()
    with progress_stream() as stream:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            papermill.execute_notebook(
                str(paths.repo_root() / "notebooks" / f"{name}.ipynb"),
                str(output),
                parameters=values,
                progress_bar=False,
                stdout_file=stream,
                kernel_name="python3",
                language="python",
                kernel_manager_class=kernels.OwnKernels,
                extra_arguments=[
                    "--log-level=CRITICAL",  # else it warns of listening on loopback, and of being ended
                    "--InteractiveShellApp.ignore_cwd=True",  # what lies in the working directory is no module
                ],
            )
        except PapermillExecutionError as error:
            message = f"{error.ename}: {error.evalue}"
            _note_failure(run, f"{name}: {message}", output)
            if own := getattr(errors, error.ename, None):  # the notebook's own message, for people
                raise own(error.evalue) from None
            where = f"The executed notebook with the traceback: {output}"
            raise DistilbenchError(f"{name} failed with {message}. {where}") from None
        except OSError as error:  # papermill writes the notebook after every cell, Jupyter has files of its own
            problem = paths.storage_error(error.filename or output, error)
            _note_failure(run, f"{name}: {problem}", output)
            raise problem from error
        except RuntimeError as error:
            killed = cgroups.killed_since(kills)
            why = " (meanwhile the kernel of the system killed a process for want of memory)" if killed else ""
            raise RunError(f"the kernel of {name} ended: {error}{why}. To resume, repeat the command.") from error


def _note_failure(run: Run, message: str, output: Path) -> None:
    """Sets the state of a run that does not say how it ended; one that somebody removed stays removed.

    Where a full disk has no room for it, the unfinished notebook, made anew later, makes it: a run that is still
    `pending` after that would look as if it waited for something.
    """
    if not run.folder.is_dir() or paths.read_json(run.folder / "status.json")["state"] not in ("pending", "running"):
        return  # as it was written: `run.status` would say of a running one that it was interrupted
    try:
        run.set_status("failed", message)
    except StorageError:
        with suppress(OSError):
            output.unlink()
        with suppress(StorageError):
            run.set_status("failed", message)
