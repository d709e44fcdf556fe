"""The steps of a run: each measured in a process of its own, committed one by one, resumable at any point. No torch."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError, Stopped, how_it_ended
from distilbench.harness import fork_server, shards
from distilbench.progress import Progress
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Step
from distilbench.runs.parameters import Resolved
from distilbench.runs.records import Cell, Record
from distilbench.runs.states import FINAL


def measure_run(run: Run, resolved: Resolved, prepared: Any = None) -> dict[str, Any]:
    """Measures what is missing in the run and derives summary.json; returns the summary.

    Ctrl-C ends the current repetition and leaves a run that can be resumed; a kill leaves one too. A run in shards is
    measured elsewhere: what they finished is gathered.

    Args:
        prepared: as `prepare` of its kind gives it; None: it is prepared here.

    Raises:
        RunError: another process works on the run, or its files are damaged.
        Stopped: the file that $DISTILBENCH_STOP_FILE names was there after a repetition.
    """
    with run.held():
        for message in [*run.recover(), *([] if run.is_split else run.record_code_change())]:
            print(message, flush=True)
        try:
            if run.is_split:
                done, parts = shards.gather(run), len(shards.of(run, resolved))
                print(f"{done} repetitions gathered from {parts} parts", flush=True)
            else:
                _measure_missing(run, resolved, prepared or run.kind.measuring.prepare(resolved.params, run))
        except (Exception, KeyboardInterrupt) as error:
            state, message = how_it_ended(error)
            way_on = "" if state == "failed" else f"; to resume: {run.resume_command}"
            run.set_status(state, message + way_on)
            raise
        finally:
            fork_server.end()
        return finish(run, resolved)


def in_rounds(cells: Callable[[Any], list[Cell]], pass_name: str = "timing") -> Callable[[Resolved], list[Step]]:
    """A plan: each round has every cell once, in shuffled order, so that none has all of a disturbance."""

    def plan(resolved: Resolved) -> list[Step]:
        order, points = random.Random(resolved.design_hash), cells(resolved.params)
        rounds = range(resolved.params.repetitions)
        return [(cell, pass_name, number) for number in rounds for cell in order.sample(points, len(points))]

    return plan


def _measure_missing(run: Run, resolved: Resolved, prepared: Any) -> None:
    measuring = run.kind.measuring
    measuring.once(run, resolved.params)
    take, more = measuring.take(run, resolved, prepared), measuring.count_later(resolved.params)
    step = measure_steps(run, resolved, take, run.kind.plan(resolved), run.repetitions(), extra=more)
    for later in measuring.later(run, resolved.params):
        step(*later)


def finish(run: Run, resolved: Resolved) -> dict[str, Any]:
    """Derives summary.json, sets the states, clears the scratch files."""
    derived = run.kind.summarise(run.folder)
    paths.write_json(run.folder / "summary.json", derived)
    control = derived.get("control")
    states = {cell["cell"]: cell["state"] for cell in derived["cells"] + ([control["cell"]] if control else [])}
    if run.is_split:
        states |= shards.ends(run, resolved)
    bad = [f"{name} ({state})" for name, state in states.items() if state not in FINAL]
    run.set_status("failed" if bad else "ok", f"not measured: {', '.join(bad)}" if bad else "", states)
    if not bad:
        shutil.rmtree(run.folder / "work", ignore_errors=True)
    return derived


def measure_shard(run: Run, resolved: Resolved, number: int, retry_oom: bool = False) -> None:
    """Measures what a shard of a run lacks, into an attempt of its own; nothing is done where nothing is missing.

    Args:
        retry_oom: measure again what ended for want of memory.

    Raises:
        RunError: there is no such shard; this node is of another kind than the first; repetitions failed.
        Stopped: asked to stop after a repetition (see `measure_run`).
    """
    run.require_same_design(resolved)
    plans = shards.of(run, resolved)
    if not 0 <= number < len(plans):
        raise RunError(f"run {run.run_id} has parts 0 to {len(plans) - 1}, and no part {number}")
    steps, before = plans[number], shards.repetitions(run, number)
    if not shards.missing_steps(steps, before, retry_oom):
        print(f"part {number} of run {run.run_id}: all of its {len(steps)} repetitions are done", flush=True)
        return
    measuring = run.kind.measuring
    prepared = measuring.load(run)
    with shards.start_attempt(run, number) as attempt:
        if not number and not any((a.folder / "ceilings.json").is_file() for a in shards.attempts(run, number)):
            measuring.once(attempt, resolved.params)
        take = measuring.take(attempt, resolved, prepared)
        try:
            measure_steps(attempt, resolved, take, steps, before, retry_oom=retry_oom)
        finally:
            fork_server.end()
        now = attempt.repetitions()
        if failed := [record for record in now if record.status not in FINAL]:
            raise RunError(f"{len(failed)} of {len(now)} repetitions failed; the first: {failed[0].error}")


def measure_steps(
    run: Run,
    resolved: Resolved,
    take: Callable[[Cell, str, int, int], Record],
    steps: list[Step],
    before: list[Any],
    extra: int = 0,
    retry_oom: bool = False,
) -> Callable[[Cell, str, int], None]:
    """Measures the steps that are not finished yet, into a run or an attempt; returns what measures one more.

    Args:
        take: measures a step, given the number of the attempt at it.
        before: what was committed earlier.
        extra: steps that will come after these.
    """
    done = shards.finished(before, retry_oom)
    oom_cells = shards.oom_cells(done)
    attempts = {record.key: record.attempt for record in before}
    progress = Progress(len(steps) + extra, ahead=Counter(pass_name for _, pass_name, _ in steps))
    missing, finished_now = shards.missing_steps(steps, before, retry_oom), 0

    def step(cell: Cell, pass_name: str, repetition: int) -> None:
        nonlocal finished_now
        key = (cell.cell, pass_name, repetition)
        missing.discard(key)
        if key in done or cell.cell in oom_cells:
            progress.skip(kind=pass_name)
            return
        run.set_status("running", cells={cell.cell: "running"})
        record = take(cell, pass_name, repetition, attempts.get(key, 0) + 1)
        run.commit(record)
        if record.status == "oom":
            oom_cells.add(cell.cell)  # its other repetitions would end the same way
        progress.step(record.in_words(), seconds=record.seconds, kind=pass_name)
        finished_now += record.status in FINAL
        if missing:
            _stop_if_asked(finished_now, len(missing))

    for planned in steps:
        step(*planned)
    return step


def _stop_if_asked(finished_now: int, left: int) -> None:
    """Ends the measuring between two repetitions when a batch script says so (its time is nearly over).

    Raises:
        Stopped: it does.
        RunError: it does, and nothing was finished since the start: to start again would help nobody.
    """
    file = os.environ.get("DISTILBENCH_STOP_FILE")
    if not file or not Path(file).exists():
        return
    if not finished_now:
        raise RunError(f"no repetition was finished before the time was over, {left} are left: ask for more (--time)")
    raise Stopped(f"asked to stop with {left} repetitions left")
