"""Measurements of decoders in this process: what a process of its own would do, with cores and threads left alone."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from distilbench import studies
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
