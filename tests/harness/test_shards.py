"""A run in parts: shared out, measured by many processes, gathered once, whatever becomes of them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from measuring import finished_once, prepared_by_hand, small_design, stand_in_here

from distilbench import paths, studies
from distilbench.errors import ParameterError, RunError, Stopped
from distilbench.harness import processes, shards, steps
from distilbench.machine import code, environment
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.measurements.sweep.measure import design
from distilbench.measurements.sweep.measure import run as sweep
from distilbench.measurements.sweep.records import Repetition
from distilbench.runs import find, parameters, verify
from distilbench.runs.folder import Run

CELL = "sdpa-float32-fixed-16-b00"


@pytest.fixture
def resolved(tmp_path: Path) -> parameters.Resolved:
    """Three cells, two rounds of timing and one of memory."""
    return small_design(tmp_path / "results", batch_sizes=[1, 2, 4], repetitions=2, samples_per_cycle=32)


@pytest.fixture
def run(resolved, monkeypatch, this_machine) -> Run:
    """A run split by rounds, prepared; repetitions are stand-ins."""
    monkeypatch.setattr(processes, "_spawn", stand_in_here)
    made = find.create(resolved, SWEEP)
    shards.divide(made, resolved, "rounds")
    prepared_by_hand(made).save(made)
    made.record_once("data.json", {"name": "made up"}, ())
    return made


def gathered(run: Run, resolved: parameters.Resolved) -> dict:
    return steps.measure_run(run, resolved, prepared_by_hand(run))


def committed(run: Run, part: int) -> list[tuple]:
    return [record.key for record in shards.repetitions(run, part)]


# ------------------------------------------------------------------ shares


def test_rounds_hold_every_cell_once(resolved):
    shares = shards.shard_plan(SWEEP, resolved, "rounds")
    assert [{(where, number) for _, where, number in share} for share in shares] == [
        {("timing", 0)}, {("timing", 1)}, {("memory", 0)},
    ]  # fmt: skip
    assert all({cell.batch_size for cell, _, _ in share} == {1, 2, 4} for share in shares)


def test_cells_hold_every_repetition_of_one_and_of_its_control():
    controlled = studies.resolve("distilbert", {"profile": "full", "source": "random", "batch_sizes": [1, 2]})
    shares = shards.shard_plan(SWEEP, controlled, "cells")
    assert len(shares) == 6
    both = next(share for share in shares if any(cell.control_of for cell, _, _ in share))
    assert {cell.control_of or cell.cell for cell, _, _ in both} == {
        next(c.cell for c, _, _ in both if not c.control_of)
    }
    assert sum(len(share) for share in shares) == len(design.plan(controlled))


@pytest.mark.parametrize(("split", "tasks"), [("rounds", 2), ("cells", 2), ("rounds", 1), ("cells", 3)])
def test_dealt_over_tasks_all_is_measured_in_the_plans_order(resolved, split, tasks):
    plan, shares = design.plan(resolved), shards.shard_plan(SWEEP, resolved, split, tasks)
    assert len(shares) == tasks
    assert sorted(map(plan.index, (step for share in shares for step in share))) == list(range(len(plan)))
    for share in shares:
        places = [plan.index(step) for step in share]
        assert places == sorted(places), "interleaved as planned"


@pytest.mark.parametrize("tasks", [-1, 4])
def test_more_tasks_than_units_are_refused(resolved, tasks):
    with pytest.raises(ParameterError, match=f"got {tasks}; split by rounds this design has 3 units"):
        shards.shard_plan(SWEEP, resolved, "rounds", tasks)


# ------------------------------------------------------------------ measuring and gathering


def test_parts_gathered_are_a_run(run, resolved):
    for number in (2, 0, 1):
        steps.measure_shard(run, resolved, number)
    derived = gathered(run, resolved)
    assert finished_once(run, resolved)
    assert verify.problems(run.folder) == []
    assert run.status["state"] == "ok"
    assert {cell["state"] for cell in derived["cells"]} == {"ok"}
    assert {record.node for record in run.measured()} == {environment.node()}
    env = paths.read_json(run.folder / "env.json")
    assert env["nodes"] == [environment.node()]
    first = next((run.folder / "iterations").iterdir())
    assert first.stat().st_nlink == 2, "no second copy on the same disk"


def test_gathering_twice_changes_nothing(run, resolved):
    steps.measure_shard(run, resolved, 0)
    assert shards.gather(run) == 3
    before = run.raw.read_bytes(), (run.folder / "predictions.parquet").read_bytes()
    assert shards.gather(run) == 0
    assert (run.raw.read_bytes(), (run.folder / "predictions.parquet").read_bytes()) == before


def test_what_is_missing_is_said_and_measured_alone(run, resolved):
    steps.measure_shard(run, resolved, 1)
    gathered(run, resolved)
    assert run.status["state"] == "failed"
    assert shards.unfinished(run, resolved) == [0, 2]
    with pytest.raises(RunError, match=f"distilbench submit distilbert --resume {run.run_id}"):
        run.require_ok()
    for number in shards.unfinished(run, resolved):
        steps.measure_shard(run, resolved, number)
    gathered(run, resolved)
    assert finished_once(run, resolved)


def test_a_part_that_is_done_is_left_alone(run, resolved, capsys):
    steps.measure_shard(run, resolved, 0)
    assert len(shards.attempts(run, 0)) == 1
    steps.measure_shard(run, resolved, 0)
    assert len(shards.attempts(run, 0)) == 1
    assert "all of its 3 repetitions are done" in capsys.readouterr().out


def test_there_is_no_such_part(run, resolved):
    with pytest.raises(RunError, match="parts 0 to 2, and no part 3"):
        steps.measure_shard(run, resolved, 3)


def test_a_failed_repetition_fails_its_part_only(run, resolved, monkeypatch):
    monkeypatch.setenv("STAND_IN_ENDS", f"{CELL}2-timing-0=crash")
    with pytest.raises(RunError, match="1 of 3 repetitions failed; the first: ValueError: a crash was asked for"):
        steps.measure_shard(run, resolved, 0)
    (attempt,) = shards.attempts(run, 0)
    assert shards.about(attempt)["state"] == "failed"
    assert shards.unfinished(run, resolved) == [0, 1, 2]
    monkeypatch.setenv("STAND_IN_ENDS", "")
    for number in range(3):
        steps.measure_shard(run, resolved, number)
    gathered(run, resolved)
    assert finished_once(run, resolved)
    assert sorted(record.attempt for record in run.measured()) == [1] * 8 + [2]
    assert committed(run, 0).count((f"{CELL}2", "timing", 0)) == 2, "the failure stays on record"


def test_a_torn_line_is_no_repetition(run, resolved):
    """A power loss in the middle of a commit; the next start measures it, under another folder."""
    steps.measure_shard(run, resolved, 0)
    (attempt,) = shards.attempts(run, 0)
    attempt.raw.write_bytes(attempt.raw.read_bytes()[:-40])
    assert shards.unfinished(run, resolved) == [0, 1, 2]
    steps.measure_shard(run, resolved, 0)
    assert len(shards.attempts(run, 0)) == 2
    assert sorted(committed(run, 0)) == sorted(
        (cell.cell, where, number) for cell, where, number in shards.of(run, resolved)[0]
    )


def test_of_two_attempts_that_both_finished_the_first_counts(run, resolved):
    """A node was believed lost, and lived on."""
    steps.measure_shard(run, resolved, 0)
    (attempt,) = shards.attempts(run, 0)
    hidden = attempt.folder.with_name("hidden")
    attempt.folder.rename(run.folder / "hidden")
    steps.measure_shard(run, resolved, 0)
    (second,) = shards.attempts(run, 0)
    (run.folder / "hidden").rename(hidden.with_name(attempt.folder.name))
    assert [a.folder for a in shards.attempts(run, 0)] == [attempt.folder, second.folder]
    assert len(committed(run, 0)) == 6
    assert shards.gather(run) == 3
    (first_of_run, *_) = [r for r in run.repetitions() if r.iterations_file]
    assert (run.folder / first_of_run.iterations_file).samefile(attempt.folder / first_of_run.iterations_file)


def test_an_altered_file_is_not_gathered(run, resolved):
    steps.measure_shard(run, resolved, 0)
    (attempt,) = shards.attempts(run, 0)
    file = next((attempt.folder / "iterations").iterdir())
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(RunError, match="is not the committed file"):
        shards.gather(run)


def test_files_are_copied_where_no_link_can_be_made(run, resolved, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    steps.measure_shard(run, resolved, 0)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert shards.gather(run) == 3
    assert {file.stat().st_nlink for file in (run.folder / "iterations").iterdir()} == {1}


def test_gathering_takes_what_ingest_prepared(run, resolved, monkeypatch):
    """A model of many GB is not loaded again for it."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distilbench.measurements.sweep.measure.prepare", None)  # an import of it fails
        assert sweep.prepare(resolved.params, run) == prepared_by_hand(run)
    shutil.rmtree(run.folder / "work")  # as when a run has ended
    loaded = []
    monkeypatch.setattr("distilbench.measurements.sweep.measure.prepare.prepare", lambda *given: loaded.append(given))
    sweep.prepare(resolved.params, run)
    assert loaded == [(resolved.params, run)]


# ------------------------------------------------------------------ memory


def test_what_lacked_memory_is_tried_again_only_when_asked(run, resolved, monkeypatch):
    monkeypatch.setenv("STAND_IN_ENDS", f"{CELL}4-timing-0=oom")
    for number in range(3):
        steps.measure_shard(run, resolved, number)
    gathered(run, resolved)
    assert run.status["cells"][f"{CELL}4"] == "oom"
    assert shards.gather(run) == 0, "an outcome without numbers is committed once, too"
    assert shards.unfinished(run, resolved) == []
    assert shards.unfinished(run, resolved, retry_oom=True) == [0]
    prepared_by_hand(run).save(run)  # the scratch files of a finished run are gone
    monkeypatch.setenv("STAND_IN_ENDS", "")
    steps.measure_shard(run, resolved, 0, retry_oom=True)
    gathered(run, resolved)
    assert set(run.status["cells"].values()) == {"ok"}
    assert verify.problems(run.folder) == []
    again = [record for record in run.repetitions() if record.key == (f"{CELL}4", "timing", 0)]
    assert [(record.status, record.attempt) for record in again] == [("oom", 1), ("ok", 2)]


def test_a_cell_without_memory_lacks_nothing_else(run, resolved):
    share = shards.of(run, resolved)[0] + shards.of(run, resolved)[1]
    cell = next(cell for cell, _, number in share if number == 0)
    record = Repetition(
        **cell.model_dump(), study="distilbert", repetition=0, **{"pass": "timing"}, status="oom", error="too big",
        started="2026-11-22T14:15:00Z", seconds=1,
    )  # fmt: skip
    assert {key[0] for key in shards.missing_steps(share, [record])} == {c.cell for c, _, _ in share} - {cell.cell}
    assert shards.missing_steps(share, [record], retry_oom=True) == {(c.cell, w, n) for c, w, n in share}


# ------------------------------------------------------------------ nodes


def test_a_node_of_another_kind_is_refused(run, resolved, this_machine):
    steps.measure_shard(run, resolved, 0)
    this_machine["cpu"]["model"] = "Some other CPU"
    with pytest.raises(RunError, match=r"is of another kind than .*cpu: .* there, 'Some other CPU' here.*--constraint"):
        steps.measure_shard(run, resolved, 1)
    (attempt,) = shards.attempts(run, 1)
    assert shards.about(attempt)["state"] == "failed"
    assert shards.ends(run, resolved)[f"{CELL}1"] == "failed"


def test_another_node_of_the_same_kind_may_measure(run, resolved, this_machine, monkeypatch):
    steps.measure_shard(run, resolved, 0)
    this_machine["host"]["name"] = "n2"
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    for number in (1, 2):
        steps.measure_shard(run, resolved, number)
    derived = gathered(run, resolved)
    assert derived["nodes"]["repetitions"] == {environment.node(): 3} | {
        record.node: 3 for record in run.measured() if record.repetition == 0 and record.pass_ == "timing"
    }
    assert paths.read_json(run.folder / "env.json")["nodes"] == sorted({r.node for r in run.measured()})


def test_a_node_goes_on_with_code_that_is_declared_to_measure_alike(run, resolved, this_machine, declare_alike):
    this_machine["measuring_sha256"] = "a" * 64
    steps.measure_shard(run, resolved, 0)
    this_machine["measuring_sha256"] = code.measuring_sha256()
    with pytest.raises(RunError, match=r"is of another kind than .*code: 'aaaa"):
        steps.measure_shard(run, resolved, 1)
    declare_alike("a" * 64)
    steps.measure_shard(run, resolved, 1)
    _, attempt = shards.attempts(run, 1)
    (change,) = paths.read_json(attempt.folder / "env.json")["code_changes"]
    assert (change["from"], change["to"]) == ("a" * 64, code.measuring_sha256())


def test_the_machine_that_submits_is_not_the_one_that_measures(run, resolved, this_machine):
    this_machine["cpu"]["model"] = "A compute node's CPU"
    studies.start(parameters.Resolved(resolved.params.model_copy(update={"run_id": run.run_id}), resolved.origins))
    steps.measure_shard(run, resolved, 0)
    shards.gather(run)
    assert paths.read_json(run.folder / "env.json")["cpu"]["model"] == "A compute node's CPU"


# ------------------------------------------------------------------ ends


@pytest.fixture
def stop_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DISTILBENCH_STOP_FILE", str(tmp_path / "stop"))
    return tmp_path / "stop"


def test_asked_to_stop_it_finishes_the_repetition(run, resolved, stop_file):
    stop_file.touch()
    with pytest.raises(Stopped, match="asked to stop with 2 repetitions left"):
        steps.measure_shard(run, resolved, 0)
    (attempt,) = shards.attempts(run, 0)
    assert shards.about(attempt)["state"] == "preempted"
    assert len(committed(run, 0)) == 1
    stop_file.unlink()
    steps.measure_shard(run, resolved, 0)
    assert len(committed(run, 0)) == 3


def test_asked_to_stop_with_nothing_left_it_is_done(run, resolved, stop_file):
    steps.measure_shard(run, resolved, 0)
    attempt = shards.attempts(run, 0)[0]
    lines = attempt.raw.read_text().splitlines(keepends=True)
    attempt.raw.write_text("".join(lines[:-1]))
    stop_file.touch()
    steps.measure_shard(run, resolved, 0)
    assert shards.missing_steps(shards.of(run, resolved)[0], shards.repetitions(run, 0)) == set()


def test_a_limit_too_short_for_one_repetition_is_no_reason_to_start_again(run, resolved, stop_file, monkeypatch):
    monkeypatch.setenv("STAND_IN_ENDS", "silence")
    stop_file.touch()
    with pytest.raises(RunError, match=r"no repetition was finished before the time was over, 2 are left: .*--time"):
        steps.measure_shard(run, resolved, 0)


def test_an_ordinary_run_stops_as_well(resolved, monkeypatch, this_machine, stop_file):
    monkeypatch.setattr(processes, "_spawn", stand_in_here)
    ordinary = studies.start(resolved)
    stop_file.touch()
    with pytest.raises(Stopped):
        steps.measure_run(ordinary, resolved, prepared_by_hand(ordinary))
    assert ordinary.status["state"] == "preempted"
    assert f"distilbench run distilbert --resume {ordinary.run_id}" in ordinary.status["message"]
    stop_file.unlink()
    steps.measure_run(ordinary, resolved, prepared_by_hand(ordinary))
    assert finished_once(ordinary, resolved)


def test_a_told_end_is_on_record_and_a_kill_is_not(run, resolved, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "measure_steps", interrupt)
    with pytest.raises(KeyboardInterrupt):
        steps.measure_shard(run, resolved, 0)
    (attempt,) = shards.attempts(run, 0)
    assert shards.about(attempt)["state"] == "cancelled"
    shards.end(attempt, "running", "")  # as a kill leaves it
    assert set(shards.ends(run, resolved).values()) == {"running"}
    shards.end(attempt, "timeout", "the job's time limit was reached")
    gathered(run, resolved)
    assert set(run.status["cells"].values()) == {"timeout"}


def test_without_preparation_there_is_nothing_to_measure(run, resolved):
    shutil.rmtree(run.folder / "work")
    with pytest.raises(RunError, match=r"prepared\.json is missing"):
        steps.measure_shard(run, resolved, 0)
    assert shards.attempts(run, 0) == []


def test_ceilings_are_those_of_the_first_part(run, resolved, monkeypatch):
    monkeypatch.setattr(
        processes, "measure_ceilings", lambda at, *_: paths.write_json(at.folder / "ceilings.json", {"a": 1})
    )
    for number in range(2):
        steps.measure_shard(run, resolved, number)
    assert len(list((run.folder / "parts").glob("*/*/ceilings.json"))) == 1
    shards.gather(run)
    assert paths.read_json(run.folder / "ceilings.json") == {"a": 1}


def test_inside_slurm_a_run_may_go_on_on_another_node(resolved, this_machine, monkeypatch):
    ordinary = studies.start(resolved)
    this_machine["host"]["name"] = "another node"
    with pytest.raises(RunError, match="another environment: host"):
        ordinary.require_same_environment()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    ordinary.require_same_environment()
    assert os.environ["SLURM_JOB_ID"] == "7"
