"""Run folders made and found: by name, by design, the newest, the published ones."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from distilbench import paths
from distilbench.errors import RunError
from distilbench.machine import environment
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import Resolved, StudyParams

log = logging.getLogger("distilbench")
UNFINISHED = {"pending", "running", "failed", "cancelled", "preempted"}
Sections = Mapping[str, tuple[Resolved, Measurement]]  # by name: what a section of a run measures, and with what
NO_SECTIONS: Sections = {}


def new_run_id(device: str) -> str:
    """UTC time, device, short random: 20261122T141500Z-cpu-1a2b3c4d."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{device.replace(':', '')}-{secrets.token_hex(4)}"


def create(resolved: Resolved, kind: Measurement, run_id: str = "", sections: Sections = NO_SECTIONS) -> Run:
    """Makes a new run folder with config.json, env.json and status.json, and in it one for each section.

    Raises:
        RunError: the folder exists already.
    """
    params = resolved.params
    run = Run(params.runs_folder / (run_id or params.run_id or new_run_id(params.device)), kind)
    new = not run.folder.exists()
    with run.held():  # two starts of one name: the second is refused
        if run.exists:
            raise RunError(f"run {run.run_id} exists already in {run.folder.parent}")
        try:
            for name, (its, of) in sections.items():
                _fill(run.section(name, of), its, ())
            _fill(run, resolved, tuple(sections))
        except Exception:  # such as a full disk
            if new:
                shutil.rmtree(run.folder, ignore_errors=True)
            raise
    return run


def renew(section: Run, resolved: Resolved) -> None:
    """Makes a section anew that was not begun."""
    _fill(section, resolved, ())


def _fill(run: Run, resolved: Resolved, sections: tuple[str, ...]) -> None:
    """Writes what a new run folder holds, status.json last; what a kill in here left is written again."""
    params, cells = resolved.params, run.kind.cells(resolved.params)
    with paths.clear_write_errors(run.folder):
        for name in (*run.kind.folders, "notebooks"):
            (run.folder / name).mkdir(parents=True, exist_ok=True)
    paths.write_json(run.folder / "env.json", environment.capture())
    config = {
        "schema_version": 1,
        "run_id": run.run_id,
        "study": params.study,
        "kind": run.kind.name,
        "created": environment.now(),
        "sequence": _next_sequence(params.runs_folder.parent),
        "design_hash": resolved.design_hash,
        "parameters": params.model_dump(mode="json") | {"run_id": run.run_id},
        "origins": resolved.origins,
        "seeds": {"sample_order": params.seed, "random_weights": params.seed, "cell_order": resolved.design_hash},
        "cells": [cell.model_dump() for cell in cells],
    } | ({"sections": list(sections)} if sections else {})
    paths.write_json(run.folder / "config.json", config)
    run.set_status("pending", cells={cell.cell: "pending" for cell in cells})


def warn_of_code_without_commit(profile: str) -> None:
    """Says before hours of measuring, not after, that the run cannot be published."""
    if profile == "full" and (why := environment.uncommitted(environment.git())):
        text = f"warning: this code is in no commit ({why}), so the run cannot be published"
        log.warning(text, extra={"fields": {"event": "warning"}})


def to_resume(resolved: Resolved, new: bool = False) -> Run | None:
    """The run that a start resumes: the one named by `run_id`, else the newest unfinished one of this design.

    None: there is neither, or a `new` one is asked for.

    Raises:
        RunError: the named one has another design or environment, or is there although a `new` one is asked for.
    """
    params = resolved.params
    if not params.run_id:
        return None if new else _newest_unfinished(params.runs_folder, resolved.design_hash)
    run = Run(params.runs_folder / params.run_id)
    if not run.exists:
        return None
    if new:
        raise RunError(f"run {run.run_id} exists already: leave out --new to resume it, or name another")
    run.require_same_design(resolved)
    run.require_same_environment()
    return run


def _newest_unfinished(folder: Path, design_hash: str) -> Run | None:
    """The newest unfinished run of this design and environment that nobody works on; says which it passes over."""
    passed_over = []
    for run in reversed(all_runs(folder)):
        if run.status["state"] not in UNFINISHED or run.config["design_hash"] != design_hash:
            continue
        if not (why := run._why_not_here()):
            break
        passed_over.append(f"unfinished run {run.run_id} of this design is passed over: {why}")
    else:
        run = None
    if passed_over:
        more = f" (and {len(passed_over) - 1} older ones)" if len(passed_over) > 1 else ""
        log.warning(passed_over[0] + more)
    return run


def named(params: StudyParams) -> Run:
    """The run folder that the parameters name; it must exist."""
    run = Run(params.runs_folder / params.run_id)
    if not run.exists:
        raise RunError(f"there is no run {params.run_id!r} in {run.folder.parent}; leave run_id empty for a new one")
    return run


def all_runs(folder: Path) -> list[Run]:
    """The complete run folders below results/<study>/, oldest first; half-made ones are not runs."""
    complete = (run for run in paths.folders_in(folder) if os.path.isfile(run / "status.json"))  # noqa: PTH113
    return sorted((Run(run) for run in complete if not run.name.startswith(".")), key=_age)


def _age(run: Run) -> tuple[int, str]:
    """Sorts runs by when they were made; names are the user's choice."""
    config = run.config
    return config.get("sequence") or _microseconds(config["created"]), run.run_id


def _next_sequence(root: Path) -> int:
    """Orders runs even where the clock was set back: microseconds since 1970, but above every run that is there."""
    sequences = [time.time_ns() // 1000]
    for file in root.glob("*/*/status.json"):
        with suppress(RunError):  # a damaged one is no reason not to begin another
            sequences.append(_age(Run(file.parent))[0] + 1)
    return max(sequences)


def _microseconds(created: str) -> int:
    return int(datetime.fromisoformat(created).timestamp() * 1e6)


def own_runs(results_root: str | Path = "") -> list[Run]:
    """All runs in the results folder but the published ones, oldest first."""
    studies = (study for study in paths.folders_in(paths.results_root(results_root)) if study.name != "published")
    return sorted((run for study in studies for run in all_runs(study)), key=_age)


def published_runs() -> list[Run]:
    """The runs that the report cites, oldest first."""
    return sorted((run for study in paths.folders_in(paths.published_root()) for run in all_runs(study)), key=_age)


def published_instruments(kind: Measurement) -> list[Path]:
    """Published folders of a kind that tells of the instrument, and of no study; oldest first."""
    return sorted(file.parent for file in (paths.published_root() / kind.name).glob("*/summary.json"))


def published_instrument(kind: Measurement, slot: str) -> Path | None:
    """The published folder of that kind, for that value of its `slot`."""
    return next((f for f in published_instruments(kind) if Run(f).config[kind.slot] == slot), None)


def find(reference: str, results_root: str | Path = "") -> Run:
    """A run by folder path, by id, by the unique beginning or end of its id, or `latest`.

    One's own runs are meant first; what none of them matches may be a published one.

    Raises:
        RunError: there is none, or several match; the candidates are named.
    """
    if Run(Path(reference)).exists:
        return Run(paths.readable(Path(reference).resolve()))
    root, own = paths.results_root(results_root), own_runs(results_root)
    if reference == "latest" and own:
        return own[-1]
    matching = _matching(reference, own) or _matching(reference, published_runs())
    if len(matching) == 1:
        return matching[0]
    if not own and not matching:
        raise RunError(f"there are no runs in {root}: make one with `distilbench run distilbert`")
    listed = ", ".join(run.run_id for run in (matching or own[-5:]))
    what = "several runs match" if matching else "there is no run"
    raise RunError(f"{what} {reference!r} in {root}. {'They are' if matching else 'The newest are'}: {listed}.")


def _matching(reference: str, known: list[Run]) -> list[Run]:
    return [run for run in known if run.run_id == reference] or [
        run for run in known if run.run_id.startswith(reference) or run.run_id.endswith(reference)
    ]
