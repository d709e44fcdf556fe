"""A run in parts: a batch system measures shares of its plan on many nodes, and they are gathered into one run.

    parts.json                  how the plan is shared out
    parts/environment.json      what all nodes must have in common; the first one to begin says
    parts/<part>/<attempt>/     one start of a part: attempt.json, env.json, and records with their files

Each start of a part writes into a folder of its own, so that two at once (a node that was believed lost and lives on)
never write the same file. What an earlier start finished is not done again. No torch.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from distilbench import paths
from distilbench.errors import ParameterError, RunError, how_it_ended
from distilbench.machine import conditions, environment
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Measurement, Step
from distilbench.runs.parameters import Resolved
from distilbench.runs.rawfiles import read_committed
from distilbench.runs.records import Key
from distilbench.runs.states import FINAL, MEASURED

Split = Literal["rounds", "cells"]
OF_A_NODE = ("host", "visible GPUs")  # of an environment's key: what differs between nodes of one kind
OF_THE_JOB = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT")
LOST = "the process ended without a word (killed, or the node lost power)"


# ------------------------------------------------------------------ shares of the plan


def shard_plan(kind: Measurement, resolved: Resolved, split: Split, tasks: int | None = None) -> list[list[Step]]:
    """The plan, shared out; each share keeps the plan's order, so that it stays shuffled and interleaved.

    Args:
        split: rounds: a unit is one repetition of every cell, so that cells are compared within a node; cells: a unit
            is one cell with all its repetitions (and its control), for sweeps of very many cells.
        tasks: over how many tasks units are dealt; None: one unit is one task.

    Raises:
        ParameterError: there are less units than tasks.
    """
    units: dict[str, list[int]] = {}
    steps = kind.plan(resolved)
    for number, (cell, pass_name, repetition) in enumerate(steps):
        name = f"{pass_name} {repetition}" if split == "rounds" else cell.control_of or cell.cell
        units.setdefault(name, []).append(number)
    tasks = tasks or len(units)
    if not 1 <= tasks <= len(units):
        raise ParameterError(f"tasks: got {tasks}; split by {split} this design has {len(units)} units: 1 to that many")
    dealt = list(units.values())
    return [[steps[number] for number in sorted(chain.from_iterable(dealt[i::tasks]))] for i in range(tasks)]


def divide(run: Run, resolved: Resolved, split: Split, tasks: int | None = None) -> int:
    """Fixes how a new run is shared out; returns the number of parts."""
    count = len(shard_plan(run.kind, resolved, split, tasks))
    paths.write_json(run.folder / "parts.json", {"schema_version": 1, "split": split, "tasks": count})
    return count


def of(run: Run, resolved: Resolved) -> list[list[Step]]:
    """What each part of a run measures."""
    recorded = paths.read_json(run.folder / "parts.json")
    return shard_plan(run.kind, resolved, recorded["split"], recorded["tasks"])


# ------------------------------------------------------------------ attempts


def attempts(run: Run, part: int | None = None) -> list[Run]:
    """The starts of a part (of all parts, without one), oldest first; each is a folder of records like a run's."""
    pattern = "*/*/attempt.json" if part is None else f"{part:04d}/*/attempt.json"
    return [Run(file.parent, run.kind) for file in sorted((run.folder / "parts").glob(pattern))]


def about(attempt: Run) -> dict[str, Any]:
    """Part, node, job, state and message of an attempt."""
    return paths.read_json(attempt.folder / "attempt.json")


def repetitions(run: Run, part: int) -> list[Any]:
    """All that a part's attempts committed, whole lines only, oldest first."""
    return [record for attempt in attempts(run, part) for record in attempt.repetitions()]


def finished(records: list[Any], retry_oom: bool = False) -> dict[Key, Any]:
    """What need not be done again, by key; with `retry_oom` what ended for want of memory must be."""
    final = FINAL - {"oom"} if retry_oom else FINAL
    return {record.key: record for record in records if record.status in final}


def unfinished(run: Run, resolved: Resolved, retry_oom: bool = False) -> list[int]:
    """The parts that lack something, by number."""
    each = enumerate(of(run, resolved))
    return [part for part, steps in each if missing_steps(steps, repetitions(run, part), retry_oom)]


def missing_steps(steps: list[Step], records: list[Any], retry_oom: bool = False) -> set[Key]:
    """The keys of steps that no record finishes; a cell that once lacked memory lacks nothing else."""
    done = finished(records, retry_oom)
    without = oom_cells(done)
    keys = {(cell.cell, pass_name, repetition) for cell, pass_name, repetition in steps if cell.cell not in without}
    return keys - done.keys()


def oom_cells(done: dict[Key, Any]) -> set[str]:
    """The cells that lacked memory once: their other repetitions would end the same way."""
    return {record.cell for record in done.values() if record.status == "oom"}


@contextmanager
def start_attempt(run: Run, part: int) -> Iterator[Run]:
    """A new attempt at a part; whatever ends it is recorded, but for a kill, which nobody can record.

    Raises:
        RunError: this node is of another kind than the one that began first.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"  # unique where job and restart count are not
    attempt, env = Run(run.folder / "parts" / f"{part:04d}" / name, run.kind), environment.capture()
    paths.write_json(attempt.folder / "env.json", env)
    for folder in run.kind.folders:
        (attempt.folder / folder).mkdir()
    job = {name.lower(): os.environ.get(f"SLURM_{name}") for name in OF_THE_JOB}
    start = {"schema_version": 1, "part": part, "attempt": name, "node": environment.node(), "slurm": job}
    paths.write_json(attempt.folder / "attempt.json", start | {"started": environment.now(), "state": "running"})
    try:
        _require_same_kind(run, attempt, env)
        yield attempt
    except (Exception, KeyboardInterrupt) as error:
        state, message = how_it_ended(error)
        end(attempt, state, "told to end at once (SIGTERM or Ctrl-C)" if state == "cancelled" else message)
        raise
    end(attempt, "ok", "")
    shutil.rmtree(attempt.folder / "work", ignore_errors=True)


def end(attempt: Run, state: str, message: str) -> None:
    """Records how an attempt ended."""
    ended = {"state": state, "message": message, "ended": environment.now()}
    paths.write_json(attempt.folder / "attempt.json", about(attempt) | ended)


def kind_of(env: dict[str, Any], device: str) -> dict[str, Any]:
    """What the nodes of one run must have in common."""
    left_out = OF_A_NODE + conditions.left_out_on(device)
    return {name: value for name, value in conditions.key_of(env).items() if name not in left_out}


def _require_same_kind(run: Run, attempt: Run, env: dict[str, Any]) -> None:
    """The first node says what the others must be like: a link is made by one process only, on shared disks too."""
    file, own = run.folder / "parts" / "environment.json", attempt.folder / "environment.json"
    device = run.config["parameters"]["device"]
    paths.write_json(own, {"node": environment.node(), "kind": kind_of(env, device)})
    mine = paths.read_json(own)["kind"]
    with suppress(FileExistsError):
        os.link(own, file)  # not os.replace, by which the last one would win
    own.unlink()
    there = paths.read_json(file)
    if changed := conditions.differences(there["kind"], mine):
        raise RunError(
            f"{environment.node()} is of another kind than {there['node']}, where the run began: {'; '.join(changed)}. "
            "One run is of one kind of node: choose it with --constraint, --partition or --nodelist, "
            "or start a new run."
        )
    for message in attempt.record_code_change(there["kind"]["code"]):
        print(message, flush=True)


# ------------------------------------------------------------------ gathering


def gather(run: Run) -> int:
    """Commits to the run what its parts finished and it lacks; returns how many repetitions that were.

    May be done at any time, again and again: what is there already is not touched. Of two attempts that both finished
    a repetition (a node was believed lost and lived on) the first counts.

    Raises:
        RunError: a file of a part is not the one that its record names.
    """
    known = run.repetitions()
    measured = {record.key for record in known if record.status in MEASURED}
    there = {record.to_line() for record in known}
    new = [pair for pair in _chosen(run) if pair[1].key not in measured and pair[1].to_line() not in there]
    new.sort(key=lambda pair: (pair[1].started, pair[1].key))
    _tell_environment(run)
    run.kind.measuring.bring(run, new)
    for attempt, record in new:
        for name, sha256 in record.files.items():
            _bring(attempt.folder / name, run.folder / name, sha256)
        run.commit(record)
    return len(new)


def _chosen(run: Run) -> list[tuple[Run, Any]]:
    """Per repetition the record that counts, with its attempt: the first that has numbers, else the last."""
    chosen: dict[Key, tuple[Run, Any]] = {}
    for attempt in attempts(run):
        for record in attempt.repetitions():
            if record.key not in chosen or chosen[record.key][1].status not in MEASURED:
                chosen[record.key] = (attempt, record)
    return list(chosen.values())


def _tell_environment(run: Run) -> None:
    """env.json becomes that of the nodes (it was that of the machine that submitted), ceilings.json the first one's."""
    started = {attempt: records for attempt in attempts(run) if (records := attempt.repetitions())}
    if not started:
        return
    env, known = next(iter(started)).env, run.env
    nodes = sorted({record.node for records in started.values() for record in records if record.node})
    software = {"torch": known["torch"]} if "torch" in known else {}
    paths.write_json(run.folder / "env.json", env | software | {"nodes": nodes})
    ceilings = next((file for a in started if (file := a.folder / "ceilings.json").is_file()), None)
    if ceilings and not (run.folder / "ceilings.json").is_file():
        paths.write_json(run.folder / "ceilings.json", paths.read_json(ceilings))


def _bring(source: Path, target: Path, sha256: str) -> None:
    """A second name of a part's file in the run (a copy, where there can be none); it must be the committed one."""
    read_committed(source, sha256)
    coming = target.with_name(f".{target.name}.part")
    with paths.clear_write_errors(target):
        target.parent.mkdir(exist_ok=True)
        coming.unlink(missing_ok=True)
        try:
            coming.hardlink_to(source)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, coming)
        coming.replace(target)


def ends(run: Run, resolved: Resolved) -> dict[str, str]:
    """Per cell that lacks something: how the last attempt at it ended (timeout, oom, cancelled, ...), if one began."""
    states: dict[str, str] = {}
    for part, steps in enumerate(of(run, resolved)):
        missing, tries = missing_steps(steps, repetitions(run, part)), attempts(run, part)
        if missing and tries and (state := about(tries[-1])["state"]) != "ok":
            states |= {cell: state for cell, _, _ in missing}
    return states
