"""Run folders: made, found, held, resumed. Any process may be killed at any moment; the next start resumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from distilbench import paths
from distilbench.errors import RunError
from distilbench.machine import conditions, environment
from distilbench.machine.code import measuring_sha256
from distilbench.runs import measurement
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import NOT_DESIGN, Resolved
from distilbench.runs.rawfiles import mend_raw, read_raw
from distilbench.runs.records import Key, Record
from distilbench.runs.states import FINAL, MEASURED, RunState


def _content(name: str, what: str) -> property:
    """What a JSON file of a run holds now; RunError where it is missing or damaged."""
    return property(lambda run: paths.read_json(run.folder / name), doc=what)


class Run:
    """One run folder: results/<study>/<run_id>/; what it measures is given, or as its config.json says."""

    def __init__(self, folder: Path, kind: Measurement | None = None, of: str = "") -> None:
        self.folder, self.run_id, self._kind = folder, f"{of}/{folder.name}" if of else folder.name, kind

    # -------------------------------------------------------------- files

    @property
    def kind(self) -> Measurement:
        """What it measures."""
        self._kind = self._kind or measurement.of(self.config)
        return self._kind

    @property
    def raw(self) -> Path:
        """The committed repetitions."""
        return self.folder / self.kind.raw

    def section(self, name: str, kind: Measurement | None = None) -> Run:
        """What this run holds of another kind: a run folder of its own inside, with that name."""
        return Run(self.folder / name, kind, of=self.run_id)

    @property
    def sections(self) -> list[Run]:
        """Those that it was made with, in the order of measuring."""
        return [self.section(name) for name in self.config.get("sections", [])]

    def of_kind(self, name: str) -> Run:
        """Where it measures that kind: in a section, or itself.

        Raises:
            RunError: its study does not measure it.
        """
        found = {one.kind.name: one for one in (self, *self.sections)}
        if name not in found:
            study = self.config["study"]
            raise RunError(f"study {study!r} does not measure {name!r}; it measures: {', '.join(found)}")
        return found[name]

    config = _content("config.json", "Resolved parameters, design hash, cells.")
    env = _content("env.json", "The machine and the installation (`environment.capture`).")
    model = _content("model.json", "What the model is, with its hash.")
    data = _content("data.json", "What the text is, with its hashes.")
    summary = _content("summary.json", "What follows from the other files; a run has it once it is finished.")

    @property
    def left_out(self) -> dict[str, str]:
        """SHA-256 by name of the records' files that a published copy does not have."""
        file = self.folder / "left_out.json"
        return paths.read_json(file) if file.is_file() else {}

    @property
    def exists(self) -> bool:
        """Whether there is such a run: status.json is the last file that a new one gets."""
        return (self.folder / "status.json").is_file()

    @property
    def is_finished(self) -> bool:
        """Whether it and its sections have their summaries."""
        return self.is_measured and all(section.is_finished for section in self.sections)

    @property
    def is_measured(self) -> bool:
        """Whether it has its own summary; sections may still be without."""
        return (self.folder / "summary.json").is_file()

    @property
    def status(self) -> dict[str, Any]:
        """State of the run and of its cells; a run that says running but whose process is gone was interrupted.

        A run that measured its own cells is as its first section is that did not.
        """
        status = self._own_status
        for section in self.sections if status["state"] == "ok" else []:
            if (of := section.status)["state"] != "ok":
                message = f"{section.folder.name}: {of['message'] or of['state']}"
                return status | {"state": of["state"], "message": message}
        return status

    @property
    def _own_status(self) -> dict[str, Any]:
        status = paths.read_json(self.folder / "status.json")
        if status["state"] == "running" and not self.in_use:
            status |= {"state": "cancelled", "message": "the process ended without a word (killed, or power loss)"}
        return status

    @property
    def is_split(self) -> bool:
        """Whether it is measured in parts, as jobs of a batch system (see `harness.shards`)."""
        return (self.folder / "parts.json").is_file()

    @property
    def resume_command(self) -> str:
        """The command that resumes it."""
        if "/" in self.run_id:  # a section is resumed with its run
            return Run(self.folder.parent).resume_command
        return f"distilbench {'submit' if self.is_split else 'run'} {self.config['study']} --resume {self.run_id}"

    @property
    def in_use(self) -> bool:
        """Whether a living process works on this run."""
        return any(paths.is_locked(one.folder / ".lock") for one in (self, *self.sections))

    def set_status(self, state: RunState, message: str = "", cells: dict[str, str] | None = None) -> None:
        """Writes status.json; cells that are not given keep their state."""
        file = self.folder / "status.json"
        states = (paths.read_json(file)["cells"] if self.exists else {}) | (cells or {})
        status = {"schema_version": 1, "run_id": self.run_id, "state": state, "message": message, "cells": states}
        paths.write_json(file, status | {"updated": environment.now()})

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
        if name not in (env := self.env):
            paths.write_json(self.folder / "env.json", env | {name: content})

    def record_code_change(self, begun: str | None = None) -> list[str]:
        """Adds to env.json that other code resumes it, which is declared to measure alike; says so, once a version.

        Args:
            begun: hash of the measuring code that the run was begun with; None: as its env.json says.
        """
        env, code = self.env, measuring_sha256()
        begun, known = begun or conditions.key_of(env)["code"], env.get("code_changes", [])
        why = conditions.why_alike(begun, code)
        if why is None or code in [change["to"] for change in known]:
            return []
        git = environment.git()["sha"]
        change = {"at": environment.now(), "from": begun, "to": code, "git": git, "why": why}
        paths.write_json(self.folder / "env.json", env | {"code_changes": [*known, change]})
        return [
            f"run {self.run_id} was begun with other code ({begun[:8]}), declared to measure alike; env.json says why"
        ]

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

        What sections measure comes later, and has checks of its own.

        Raises:
            RunError: names what is missing, and how to resume.
        """
        status = self._own_status
        if status["state"] != "ok":
            raise RunError(
                f"run {self.run_id} ended as {status['state']}: {status['message']}. "
                f"`distilbench show` has its table; resume with: {self.resume_command}"
            )

    # -------------------------------------------------------------- repetitions

    @contextmanager
    def held(self) -> Iterator[Run]:
        """Keeps every other process from working on this run; a second start refuses."""
        with paths.hold_lock(self.folder / ".lock", f"run {self.run_id} is being worked on by another process"):
            yield self

    def repetitions(self) -> list[Any]:
        """All committed repetitions, in order of writing."""
        return read_raw(self.raw, self.kind.record)[0]

    def finished(self) -> dict[Key, Any]:
        """The repetitions that need not be done again, by key."""
        return {record.key: record for record in self.repetitions() if record.status in FINAL}

    def measured(self) -> list[Any]:
        """The finished repetitions that have numbers."""
        return [record for record in self.finished().values() if record.status in MEASURED]

    def commit(self, record: Record) -> None:
        """Makes a record count: its files are there before its line (the line is the commit).

        Raises:
            ValidationError: the record breaks its own schema; a line that no reader takes would end the run for good.
        """
        line = record.to_line()
        self.kind.record.model_validate_json(line)
        paths.append_line(self.raw, line)

    def recover(self) -> list[str]:
        """Mends what a kill left: a half last line, iteration files that no line names. Says what it did."""
        messages = [message] if (message := mend_raw(self.raw, self.kind.record)) else []
        named = {file for record in self.repetitions() for file in record.files}
        for file in (file for name in self.kind.folders for file in sorted((self.folder / name).glob("*"))):
            name = str(file.relative_to(self.folder))
            if name not in named:
                aside = self.folder / "orphans" / file.name
                aside.parent.mkdir(exist_ok=True)
                file.replace(aside)
                messages.append(f"{name} belongs to no committed repetition; moved to orphans/")
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
        """Why a start that names no run does not resume this unfinished one; empty: it does."""
        if self.in_use:
            return "another process works on it"
        if self.is_split:
            return f"it was submitted; resume with: {self.resume_command}"
        if changed := self._environment_changes():
            return f"it was begun in another environment ({'; '.join(changed)})"
        return ""

    def _environment_changes(self) -> list[str]:
        there = conditions.key_of(self.env)
        here = conditions.key_of(environment.capture())
        left_out = conditions.left_out_on(self.config["parameters"]["device"])
        if "SLURM_JOB_ID" in os.environ:  # a requeued job may come to another node of the same kind: see `node`
            left_out += ("host",)
        return conditions.differences(there, here, left_out)


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
