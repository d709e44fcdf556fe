"""Runs a study: its notebooks in order, through papermill, into one run folder."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distilbench import errors, paths, studies
from distilbench.errors import DistilbenchError, ParameterError, RunError, StorageError
from distilbench.harness import preflight
from distilbench.logs import log
from distilbench.machine import cgroups
from distilbench.report import load
from distilbench.runs import find, parameters
from distilbench.runs.folder import Run

PROGRESS_LINE = re.compile(r"^\[\s*(\d+)/(\d+)\] (.*)$")


def resolve(study: str, given: dict[str, Any], resume: str = "", results_root: str = "") -> parameters.Resolved:
    """The parameters of a start: what was given, or those of the run to go on with."""
    if not resume:
        return studies.resolve(study, given | ({"results_root": results_root} if results_root else {}))
    run = find.find(resume, results_root)
    if given:
        raise ParameterError(
            f"--resume goes on with the parameters of run {run.run_id}; {', '.join(given)} cannot be given as well"
        )
    if run.config["study"] != study:
        raise RunError(f"run {run.run_id} is of study {run.config['study']!r}, not {study!r}")
    known = run.config["parameters"] | {"run_id": run.run_id, "results_root": str(run.folder.parent.parent)}
    return studies.resolve(study, known)


def resolve_again(run: Run) -> parameters.Resolved:
    """The parameters that a run was begun with."""
    return resolve(run.config["study"], {}, str(run.folder))


def step(run: Run, name: str) -> None:
    """Executes one notebook of the chain into a run, with the run's own parameters.

    Raises:
        DistilbenchError: what the notebook complains of.
    """
    resolved = resolve_again(run)
    with _around_kernels():
        _execute(run, name, resolved.params.model_dump(mode="json"))


@contextmanager
def failures_of(run: Run, what: str) -> Iterator[None]:
    """Notes in the run that a step of its chain failed, since no step after it will say so."""
    try:
        yield
    except Exception as error:
        run.set_status("failed", f"{what}: {(str(error).splitlines() or [type(error).__name__])[0]}")
        raise


def run_study(study: str, given: dict[str, Any], resume: str = "", new: bool = False, results_root: str = "") -> Run:
    """Executes the study's notebooks in order; each writes into the one run folder.

    Raises:
        DistilbenchError: what a notebook or a check complains of; the run can be resumed.
    """
    paths.home()  # Jupyter and libraries look for it: said before a folder is made
    preflight.open_files()  # before git and locks need some
    resolved = resolve(study, given, resume, results_root)
    run = studies.start(resolved, new)
    if run.in_use:
        raise RunError(f"run {run.run_id} is being worked on by another process")
    values = resolved.params.model_dump(mode="json") | {
        "run_id": run.run_id,
        "results_root": str(run.folder.parent.parent),
    }
    _say(f"run {run.run_id} of {study}, profile {resolved.params.profile}", run_id=run.run_id, event="run")
    with _around_kernels():
        for name in studies.chain(study):
            _say(f"notebook {name}", notebook=name, event="notebook")
            _execute(run, name, values)
    return run


def analyse(study: str, run_ids: list[str], results_root: str = "") -> list[Run]:
    """Executes the analysis over runs that are finished; returns them.

    Raises:
        RunError: one is not there or not finished, or they are in several results folders.
    """
    given = {"run_ids": run_ids, "results_root": results_root}
    resolved = studies.resolve(study, {key: value for key, value in given.items() if value}).params
    chosen = load.choose(resolved)
    own = {run.folder.parent.parent for run in chosen} - {paths.published_root()}
    if len(own) > 1:
        raise RunError(f"runs of several results folders cannot be overlaid: {', '.join(map(str, sorted(own)))}")
    values: dict[str, Any] = {
        "study": study,
        "profile": chosen[0].config["parameters"]["profile"],
        "run_ids": [run.run_id for run in chosen],
        "results_root": str(own.pop()) if own else results_root,
    }
    with _around_kernels():
        _execute(chosen[0], studies.analysis(study), values, analysis_of(chosen))
    return chosen


def analysis_of(chosen: list[Run]) -> Path:
    """Where the executed analysis of these runs goes; overlays are kept beside a run's own."""
    name = studies.analysis(chosen[0].config["study"])
    return load.output_folder(chosen) / "notebooks" / f"{name}{load.overlay_suffix(chosen)}.ipynb"


def _say(message: str, **fields: Any) -> None:
    log.info(message, extra={"fields": fields})


@contextmanager
def _around_kernels() -> Iterator[None]:
    """Asks the notebooks for progress lines, which are drawn here, and gives their IPython a folder of its own."""
    preflight.open_files()
    with tempfile.TemporaryDirectory() as folder:
        told = {"DISTILBENCH_PROGRESS": "lines", "IPYTHONDIR": folder}
        before = {name: os.environ.get(name) for name in told}
        os.environ |= told
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _execute(run: Run, name: str, values: dict[str, Any], output: Path | None = None) -> None:
    """One notebook, executed into the run's notebooks/."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from distilbench.execution import kernels

    for library in ("papermill", "traitlets", "asyncio"):  # warnings of keys that other notebooks of the chain use,
        logging.getLogger(library).setLevel(logging.CRITICAL)  # tracebacks of a kernel that ends: said here, for people
    output = output or run.folder / "notebooks" / f"{name}.ipynb"
    with paths.clear_write_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    kills = cgroups.oom_kills()
    with progress_stream() as stream:
        try:
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
            _raise_as_said(run, output, error)
        except OSError as error:  # papermill writes the notebook after every cell, Jupyter has files of its own
            problem = paths.storage_error(error.filename or output, error)
            if run.folder.is_dir():  # else somebody removed it, and it stays removed
                _note_failure(run, f"{name}: {problem}", output)
            raise problem from error
        except RuntimeError as error:
            said = f"the kernel of {name} ended: {error}{_for_memory(kills)}. Start again to go on."
            raise RunError(said) from error


def _note_failure(run: Run, message: str, output: Path) -> None:
    """Sets the run's state; where a full disk has no room for it, the unfinished notebook, made anew later, makes it.

    A run that is still `pending` after that would look as if it waited for something.
    """
    try:
        run.set_status("failed", message)
    except StorageError:
        with suppress(OSError):
            output.unlink()
        with suppress(StorageError):
            run.set_status("failed", message)


def _for_memory(kills_before: int | None) -> str:
    """Said of a kernel that ended, where the control group counted a kill for want of memory meanwhile."""
    said = " (meanwhile the kernel of the system killed a process for want of memory)"
    return said if cgroups.killed_since(kills_before) else ""


def _raise_as_said(run: Run, output: Path, error: Any) -> None:
    """The notebook's own message where it has one for people; else where to find the traceback."""
    if paths.read_json(run.folder / "status.json")["state"] in ("pending", "running"):  # as it was written
        _note_failure(run, f"{output.stem}: {error.ename}: {error.evalue}", output)
    kind = getattr(errors, error.ename, None)
    if kind is not None:
        raise kind(error.evalue) from None
    raise DistilbenchError(
        f"{output.stem} failed with {error.ename}: {error.evalue}. The executed notebook with the traceback: {output}"
    ) from None


@contextmanager
def progress_stream() -> Iterator[Any]:
    """A stream that takes what notebooks print: a bar in a terminal, log lines elsewhere."""
    if not any(type(handler).__name__ == "RichHandler" for handler in log.handlers):  # set up for terminals only
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Lines(bar)


class _Lines:
    """Cuts a stream into lines; progress lines become a bar or structured log lines, others are logged as they are."""

    def __init__(self, bar: Any = None) -> None:
        self.bar, self.task, self.rest = bar, None, ""

    def write(self, text: str) -> None:
        """Takes any piece of text."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._line(line)

    def flush(self) -> None:
        """Nothing is held back but the unfinished line."""

    def _line(self, line: str) -> None:
        matched = PROGRESS_LINE.match(line)
        if not matched:
            if line.strip():
                _say(line.rstrip(), event="output")
            return
        done, total, what = int(matched[1]), int(matched[2]), matched[3]
        if self.bar is None:
            _say(line, event="progress", done=done, total=total)
            return
        if self.task is None:
            self.task = self.bar.add_task("", total=total)
        self.bar.update(self.task, completed=done, description=what)
