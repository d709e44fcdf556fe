"""Run folders: made, found, held, resumed. Any process may be killed at any moment; the next start goes on."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from distilbench import environment, paths
from distilbench.errors import RunError
from distilbench.params import NOT_DESIGN, Resolved, StudyParams
from distilbench.records import (
    FINAL,
    MEASURED,
    PREDICTIONS,
    Cell,
    Repetition,
    RunState,
    mend_raw,
    read_parquet,
    read_raw,
    write_parquet,
)

log = logging.getLogger("distilbench")
UNFINISHED = {"pending", "running", "failed", "cancelled", "preempted"}


class Run:
    """One run folder: results/<study>/<run_id>/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name

    # -------------------------------------------------------------- files

    @property
    def raw(self) -> Path:
        """The committed repetitions."""
        return self.folder / "raw.jsonl"

    @property
    def config(self) -> dict[str, Any]:
        """Resolved parameters, design hash, cells."""
        return paths.read_json(self.folder / "config.json")

    @property
    def status(self) -> dict[str, Any]:
        """State of the run and of its cells; a run that says running but whose process is gone was interrupted."""
        status = paths.read_json(self.folder / "status.json")
        if status["state"] == "running" and not self.in_use:
            status |= {
                "state": "cancelled",
                "message": "the process ended without a word (killed, or power loss)",
            }
        return status

    @property
    def is_split(self) -> bool:
        """Whether it is measured in parts, as jobs of a batch system (see `bench.parts`)."""
        return (self.folder / "parts.json").is_file()

    @property
    def go_on(self) -> str:
        """The command that goes on with it."""
        return f"distilbench {'submit' if self.is_split else 'run'} {self.config['study']} --resume {self.run_id}"

    @property
    def in_use(self) -> bool:
        """Whether a living process works on this run."""
        return paths.is_locked(self.folder / ".lock")

    def set_status(self, state: RunState, message: str = "", cells: dict[str, str] | None = None) -> None:
        """Writes status.json; cells that are not given keep their state."""
        file = self.folder / "status.json"
        known = paths.read_json(file) if file.is_file() else {"cells": {}}
        paths.write_json(
            file,
            {
                "schema_version": 1,
                "run_id": self.run_id,
                "state": state,
                "message": message,
                "updated": environment.now(),
                "cells": known["cells"] | (cells or {}),
            },
        )

    def record_once(self, name: str, content: dict[str, Any], hashes: tuple[str, ...]) -> None:
        """Writes data.json or model.json; a later start of the run must find the same hashes.

        Raises:
            RunError: it does not; both hashes are named.
        """
        file = self.folder / name
        if not file.is_file():
            paths.write_json(file, content)
            return
        known = paths.read_json(file)
        for key in hashes:
            if known[key] != content[key]:
                raise RunError(
                    f"run {self.run_id} was begun with other content: {key} is {known[key]} in {name}, "
                    f"{content[key]} now. Start a new run (--new)."
                )

    def add_to_environment(self, name: str, content: Any) -> None:
        """Adds to env.json what only the measuring part can say; what is there already stays."""
        file = self.folder / "env.json"
        env = paths.read_json(file)
        if name not in env:
            paths.write_json(file, env | {name: content})

    def link_notebook(self) -> None:
        """Puts the notebook that papermill is writing elsewhere into notebooks/ too: a second name of the same file."""
        output = _papermill_output()
        if output is None or self.folder in output.parents or not output.is_file():
            return
        name = self.folder / "notebooks" / output.name
        name.unlink(missing_ok=True)
        try:
            name.hardlink_to(output)
        except OSError:  # another file system
            name.symlink_to(output)

    def inputs_of_cells(self) -> dict[str, set[str]]:
        """The input hashes that each cell's repetitions saw; more than one means that they are not comparable."""
        seen: dict[str, set[str]] = {}
        for record in self.finished().values():
            if record.inputs_sha256:
                seen.setdefault(record.cell, set()).add(record.inputs_sha256)
        return seen

    def require_ok(self) -> None:
        """Raises when something was not measured, so that a batch job does not count as a success.

        Raises:
            RunError: names what is missing, and how to go on.
        """
        status = self.status
        if status["state"] != "ok":
            raise RunError(
                f"run {self.run_id} ended as {status['state']}: {status['message']}. "
                f"`distilbench show` has its table; go on with: {self.go_on}"
            )

    # -------------------------------------------------------------- repetitions

    @contextmanager
    def held(self) -> Iterator[Run]:
        """Keeps every other process from working on this run; a second start refuses."""
        with paths.hold_lock(self.folder / ".lock", f"run {self.run_id} is being worked on by another process"):
            yield self

    def repetitions(self) -> list[Repetition]:
        """All committed repetitions, in order of writing."""
        return read_raw(self.raw)[0]

    def finished(self) -> dict[tuple[str, str, int], Repetition]:
        """The repetitions that need not be done again, by key."""
        return {record.key: record for record in self.repetitions() if record.status in FINAL}

    def measured(self) -> list[Repetition]:
        """The finished repetitions that have numbers."""
        return [record for record in self.finished().values() if record.status in MEASURED]

    def commit(self, record: Repetition, predictions: list[dict[str, Any]] | None = None) -> None:
        """Makes a repetition count: predictions first, its line last (the line is the commit).

        Raises:
            ValidationError: the record breaks its own schema; a line that no reader takes would end the run for good.
        """
        line = record.to_line()
        Repetition.model_validate_json(line)
        if predictions is not None:
            self.replace_predictions({record.cell}, predictions)
        paths.append_line(self.raw, line)

    def replace_predictions(self, cells: set[str], rows: list[dict[str, Any]]) -> None:
        """Writes the predictions of cells in the place of what was there of them."""
        file = self.folder / "predictions.parquet"
        others = [row for row in read_parquet(file) if row["cell"] not in cells] if file.is_file() else []
        write_parquet(file, others + rows, PREDICTIONS)

    def recover(self) -> list[str]:
        """Mends what a kill left: a half last line, iteration files that no line names. Says what it did."""
        messages = [message] if (message := mend_raw(self.raw)) else []
        named = {record.iterations_file for record in self.repetitions()}
        for file in sorted((self.folder / "iterations").glob("*")):
            if f"iterations/{file.name}" not in named:
                aside = self.folder / "orphans" / file.name
                aside.parent.mkdir(exist_ok=True)
                file.replace(aside)
                messages.append(f"iterations/{file.name} belongs to no committed repetition; moved to orphans/")
        return messages

    def require_same_design(self, resolved: Resolved) -> None:
        """Refuses to mix designs in one run."""
        known = self.config
        if known["design_hash"] == resolved.design_hash:
            return
        new = resolved.params.model_dump(mode="json")
        changed = [
            f"{key}: {known['parameters'].get(key)!r} there, {value!r} now"
            for key, value in new.items()
            if known["parameters"].get(key) != value and key not in NOT_DESIGN
        ] or ["measured by another version of the code"]
        raise RunError(
            f"run {self.run_id} has another design ({known['design_hash']}, now {resolved.design_hash}): "
            + "; ".join(changed)
            + ". Start a new run (--new, or an empty run_id), or resume with the run's own parameters."
        )

    def require_same_environment(self) -> None:
        """Refuses to mix machines or versions in one run; one in parts sees to that when a part begins."""
        if not self.is_split and (changed := self._environment_changes()):
            raise RunError(
                f"run {self.run_id} was begun in another environment: {'; '.join(changed)}. "
                "Its repetitions cannot be mixed with new ones: start a new run (--new)."
            )

    def _why_not_here(self) -> str:
        """Why a start that names no run does not go on with this unfinished one; empty: it does."""
        if self.in_use:
            return "another process works on it"
        if self.is_split:
            return f"it was submitted; go on with: {self.go_on}"
        if changed := self._environment_changes():
            return f"it was begun in another environment ({'; '.join(changed)})"
        return ""

    def _environment_changes(self) -> list[str]:
        there = environment.key_of(paths.read_json(self.folder / "env.json"))
        here = environment.key_of(environment.capture())
        left_out = environment.OF_GPUS if self.config["parameters"]["device"] == "cpu" else ()
        if "SLURM_JOB_ID" in os.environ:  # a requeued job may come to another node of the same kind: see `node`
            left_out += ("host",)
        changed = [key for key in here if key not in left_out and there.get(key) != here[key]]
        return [f"{key}: {there.get(key)!r} there, {here[key]!r} here" for key in changed]


def _papermill_output() -> Path | None:
    """The output path of the papermill command that started this kernel, where there is one.

    papermill tells a notebook its output path only on request (--inject-output-path), so the command line is read.
    """
    parent = psutil.Process().parent()
    try:
        command, where = (parent.cmdline(), parent.cwd()) if parent else ([], "")
    except psutil.Error:
        return None
    notebooks = [word for word in command if word.endswith(".ipynb")]
    if len(notebooks) < 2 or not any(Path(word).name.startswith("papermill") for word in command[:4]):
        return None
    return (Path(where) / notebooks[1]).resolve()


def new_run_id(device: str) -> str:
    """UTC time, device, short random: 20261122T141500Z-cpu-1a2b3c4d."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{device.replace(':', '')}-{secrets.token_hex(4)}"


def create(resolved: Resolved, cells: list[Cell], run_id: str = "") -> Run:
    """Makes a new run folder with config.json, env.json and status.json.

    Raises:
        RunError: the folder exists already.
    """
    params = resolved.params
    run_id = run_id or params.run_id or new_run_id(params.device)
    run = Run(paths.results_root(params.results_root) / params.study / run_id)
    new = not run.folder.exists()
    with run.held():  # two starts of one name: the second is refused
        if (run.folder / "status.json").is_file():
            raise RunError(f"run {run_id} exists already in {run.folder.parent}")
        try:
            _fill(run, resolved, cells)
        except Exception:  # such as a full disk
            if new:
                shutil.rmtree(run.folder, ignore_errors=True)
            raise
    return run


def _fill(run: Run, resolved: Resolved, cells: list[Cell]) -> None:
    """Writes what a new run folder holds, status.json last; what a kill in here left is written again."""
    params = resolved.params
    with paths.clear_write_errors(run.folder):
        (run.folder / "iterations").mkdir(exist_ok=True)
        (run.folder / "notebooks").mkdir(exist_ok=True)
    paths.write_json(run.folder / "env.json", environment.capture())
    config = {
        "schema_version": 1,
        "run_id": run.run_id,
        "study": params.study,
        "created": environment.now(),
        "sequence": _next_sequence(run.folder.parent.parent),
        "design_hash": resolved.design_hash,
        "parameters": params.model_dump(mode="json") | {"run_id": run.run_id},
        "origins": resolved.origins,
        "seeds": {
            "sample_order": params.seed,
            "random_weights": params.seed,
            "cell_order": resolved.design_hash,
        },
        "cells": [cell.model_dump() for cell in cells],
    }
    paths.write_json(run.folder / "config.json", config)
    run.set_status("pending", cells={cell.cell: "pending" for cell in cells})


def warn_of_code_without_commit(profile: str) -> None:
    """Says before hours of measuring, not after, that the run cannot be published."""
    if profile == "full" and (why := environment.uncommitted(environment.git())):
        said = f"warning: this code is in no commit ({why}), so the run cannot be published"
        log.warning(said, extra={"fields": {"event": "warning"}})


def open_or_create(resolved: Resolved, cells: list[Cell], new: bool = False) -> Run:
    """The run to work on: the one named by `run_id`, else the newest unfinished one of this design, else a new one.

    With `new` always a new one.
    """
    params = resolved.params
    root = paths.results_root(params.results_root)
    if params.run_id:
        run = Run(root / params.study / params.run_id)
        if not (run.folder / "status.json").is_file():
            return create(resolved, cells)
        if new:
            raise RunError(f"run {run.run_id} exists already: leave out --new to go on with it, or name another")
        run.require_same_design(resolved)
        run.require_same_environment()
        return run
    if not new and (run := _newest_unfinished(root / params.study, resolved.design_hash)):
        return run
    return create(resolved, cells)


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


def exists(params: StudyParams) -> bool:
    """Whether the parameters name a run folder that is there."""
    folder = paths.results_root(params.results_root) / params.study / params.run_id
    return bool(params.run_id) and (folder / "status.json").is_file()


def named(params: StudyParams) -> Run:
    """The run folder that the parameters name; it must exist."""
    run = Run(paths.results_root(params.results_root) / params.study / params.run_id)
    if not exists(params):
        raise RunError(f"there is no run {params.run_id!r} in {run.folder.parent}; leave run_id empty for a new one")
    return run


def all_runs(folder: Path) -> list[Run]:
    """The complete run folders below results/<study>/, oldest first; half-made ones are not runs."""
    found = (run for run in paths.folders_in(folder) if os.path.isfile(run / "status.json"))  # noqa: PTH113
    return sorted((Run(run) for run in found if not run.name.startswith(".")), key=_age)


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


def find(reference: str, results_root: str | Path = "") -> Run:
    """A run by folder path, by id, by the unique beginning or end of its id, or `latest`.

    One's own runs are meant first; what none of them matches may be a published one.

    Raises:
        RunError: there is none, or several match; the candidates are named.
    """
    if (Path(reference) / "status.json").is_file():
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
