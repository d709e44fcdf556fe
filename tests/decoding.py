"""Measurements of decoders in this process: what a process of its own would do, with cores and threads left alone."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distilbench import paths, studies
from distilbench.collectors import threads
from distilbench.harness import processes, steps
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.runs.folder import Run


def in_this_process(patched: pytest.MonkeyPatch) -> None:
    """The worker that a command names measures here."""

    def here(command: tuple[str, ...], *_: object) -> tuple[int | None, str]:
        return importlib.import_module(command[-2]).main(Path(command[-1])), ""

    patched.setattr(processes, "_spawn", here)
    patched.setattr(sweep, "take_cores", lambda protocol: protocol["affinity"])
    patched.setattr(threads, "proof", lambda *_: {"threads_used": 1, "product_cores": 1.0})


def section(folder: Path, name: str, **given):
    """A section of a new run of the study, in its ci profile: the run, and what it resolves to."""
    resolved = studies.resolve("palu", {"profile": "ci", "results_root": str(folder / "results")} | given)
    return studies.section(studies.start(resolved, new=True), resolved, name)


def measured(folder: Path, name: str, **given) -> Run:
    """The same, measured here."""
    with pytest.MonkeyPatch.context() as patched:
        in_this_process(patched)
        run, resolved = section(folder, name, **given)
        steps.measure_run(run, resolved)
    run.require_ok()
    return run


def copy(run: Run, folder: Path) -> Run:
    """A section to spoil, in a copy of its whole run."""
    shutil.copytree(run.folder.parent, folder / "copy")
    return Run(folder / "copy" / run.folder.name)


def cell(run: Run, name: str) -> dict[str, Any]:
    """Of a run's summary."""
    return next(one for one in run.summary["cells"] if one["cell"] == name)


def require_committed_schema(run: Run, name: str, schema: dict[str, Any]) -> None:
    """The schema in the book is that of the record, and each line has all of its fields."""
    committed = (paths.repo_root() / "book" / "schemas" / f"{name}.v1.schema.json").read_text()
    assert committed == json.dumps(schema, indent=2, sort_keys=True) + "\n"
    for line in run.raw.read_text().splitlines():
        assert json.loads(line).keys() == schema["properties"].keys()
