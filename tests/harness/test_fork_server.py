"""Repetitions that are forked from one process: they end, fail and are killed as fresh ones, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from measuring import (
    STAND_IN,
    committed,
    ctrl_c_works,
    descendants,
    finished_once,
    is_a_fork,
    prepared_by_hand,
    small_design,
)
from waiting import alive, all_gone, wait_for

from distilbench import paths, studies
from distilbench.harness import fork_server, processes, steps
from distilbench.measurements.sweep.kind import MEASUREMENT
from distilbench.measurements.sweep.measure import run as sweep
from distilbench.measurements.sweep.summary.join import FORKED
from distilbench.report import insights, load
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

CELL = "sdpa-float32-fixed-16-b002"


@pytest.fixture
def stand_in(monkeypatch, this_machine):
    monkeypatch.setattr(sweep, "WORKER", STAND_IN)


def start(results: Path, **given) -> tuple[Run, Resolved]:
    resolved = small_design(results, **{"repetitions": 3, "passes": ["timing"], "fresh_processes": False} | given)
    return studies.start(resolved), resolved


def measure(run: Run, resolved: Resolved) -> dict:
    derived = steps.measure_run(run, resolved, prepared_by_hand(run))
    assert servers() == [], "none is left when a run ends"
    return derived


def servers() -> list[psutil.Process]:
    """Of this process; forks of theirs are below them."""
    return descendants(os.getpid(), "standin_worker")


def outcomes(run: Run) -> list[tuple[str, str | None, str | None]]:
    return [(record.status, record.error, record.start) for record in run.repetitions()]


def test_repetitions_of_the_timing_pass_come_from_one_process_and_those_of_memory_are_fresh(stand_in, tmp_path):
    run, resolved = start(tmp_path, passes=["timing", "memory"])
    known = {"name": "made up", "source": "random", "parameters": 1, "rows": 40, "tokens": {"max": 20}}
    for name in ("model.json", "data.json"):
        paths.write_json(run.folder / name, known)
    summary = measure(run, resolved)
    assert finished_once(run, resolved)
    assert verify.problems(run.folder) == []
    assert [(r.pass_, r.start) for r in run.repetitions()] == [("timing", "forked")] * 3 + [("memory", "fresh")]
    assert summary["note"].endswith(f"; {FORKED}")
    assert FORKED in insights.run_summary(run, summary)
    row = load.about([run])[0]["fresh processes per cell"]
    assert row == "timing: 3 (forked from one); memory: 1; energy: not asked for"
    assert "n = 3 forked processes per cell" in load.citation(run)
    table = load.table([run])
    assert "3 forked processes per cell" in MEASUREMENT.showing.caption(table)
    assert "Memory: 1 fresh process per cell" in MEASUREMENT.showing.caption(table)


def test_only_the_small_profiles_fork_and_a_gpu_never(stand_in, tmp_path, monkeypatch):
    assert [studies.resolve("distilbert", {"profile": p}).params.fresh_processes for p in ("ci", "smoke", "full")] == [
        False, False, True,
    ]  # fmt: skip
    asked = []
    monkeypatch.setattr(processes, "run_worker", lambda *arguments: asked.append(arguments[-1]) or pytest.skip)
    monkeypatch.setattr(sweep, "_has_predictions", lambda _: False)
    for where, given in (
        ("timing", {}), ("memory", {}), ("energy", {"modelled_power_W": 5.0}), ("timing", {"device": "cuda:0"}),
        ("timing", {"fresh_processes": True}),
    ):  # fmt: skip
        resolved = small_design(tmp_path, **{"fresh_processes": False} | given)
        run = Run(tmp_path / "run", MEASUREMENT)
        (cell,) = MEASUREMENT.cells(resolved.params)
        sweep.take(run, resolved, prepared_by_hand(run))(cell, where, 0, 1)
    assert asked == [False, True, True, True, True], "whether the process is fresh"


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("crash", "ValueError: a crash was asked for"),
        ("silence", "the worker ended with code 7 and said nothing"),
        ("kill", "killed by SIGKILL"),
    ],
)
def test_a_fork_that_fails_is_recorded_as_a_process_is_and_the_others_go_on(
    stand_in, tmp_path, monkeypatch, word, error
):
    monkeypatch.setenv("STAND_IN_ENDS", f"{CELL}-timing-1={word}")
    run, resolved = start(tmp_path)
    measure(run, resolved)
    assert sorted(outcomes(run)) == [("failed", error, "forked"), ("ok", None, "forked"), ("ok", None, "forked")]
    monkeypatch.delenv("STAND_IN_ENDS")
    measure(*start(tmp_path))
    assert committed(run)[3:] == [((CELL, "timing", 1), 2, "ok")]


def test_a_fork_that_hangs_is_stopped(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "3600")
    run, resolved = start(tmp_path, repetition_timeout_s=5.0, repetitions=1)
    ready = fork_server.ready  # it may start for longer than 5 s
    monkeypatch.setattr(fork_server, "ready", lambda command, variables, _: ready(command, variables, 600))
    measure(run, resolved)
    assert outcomes(run) == [("timeout", "not done after repetition_timeout_s = 5 s", "forked")]


@pytest.mark.parametrize("victim", ["fork", "server"])
def test_a_fork_or_a_server_that_is_killed_costs_one_repetition(stand_in, tmp_path, monkeypatch, victim):
    monkeypatch.setenv("STAND_IN_SECONDS", "2")
    run, resolved = start(tmp_path)
    at_work = []

    def kill() -> None:
        wait_for(lambda: any(is_a_fork(process) for process in servers()))
        at_work.extend(sorted(servers(), key=lambda process: process.ppid() != os.getpid()))
        at_work[victim == "fork"].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    measure(run, resolved)
    thread.join()
    assert sorted(outcomes(run)) == [("failed", "killed by SIGKILL", "forked"), *[("ok", None, "forked")] * 2]
    assert all_gone(at_work), "a fork does not outlive its server"


def test_a_server_that_is_killed_between_two_steps_is_replaced(stand_in, tmp_path):
    def kill() -> str:
        idle = fork_server._server.process
        idle.kill()
        idle.wait(60)  # of several threads the first may be a zombie while the others are not gone
        return "here"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes.environment, "node", kill)
        run, resolved = start(tmp_path)
        measure(run, resolved)
    assert outcomes(run) == [("ok", None, "forked")] * 3


def test_a_process_with_threads_is_not_forked(tmp_path, capfd):
    """A lock that another thread holds would be locked in a fork for ever: a fresh process does it then."""
    threaded = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); "
    told = threaded + "from distilbench.harness.__main__ import file_of; file_of('-')"
    command = (sys.executable, "-c", told)
    assert fork_server.ready(command, dict(os.environ), 60) is None
    ended = fork_server._server.process
    assert ended.returncode == 1
    assert fork_server.ready(command, dict(os.environ), 60) is None
    assert fork_server._server.process is ended, "it is not tried again"
    fork_server.end()


def test_another_number_of_threads_or_heap_is_another_server():
    first = fork_server.ready(STAND_IN, processes._variables(1, "system"), 60)
    assert first.process.poll() is None
    other = fork_server.ready(STAND_IN, processes._variables(1, "keep"), 60)
    assert other is not first
    assert first.process.returncode == -signal.SIGKILL, "the first one is gone"
    variables = Path(f"/proc/{other.process.pid}/environ").read_bytes().split(b"\0")
    assert b"MALLOC_MMAP_MAX_=0" in variables
    assert b"OMP_NUM_THREADS=1" in variables
    fork_server.end()
    assert servers() == []


INTERRUPTED = """
import sys
from measuring import STAND_IN, prepared_by_hand, small_design
from distilbench import studies
from distilbench.harness import steps
from distilbench.measurements.sweep.measure import run as sweep
sweep.WORKER = STAND_IN
resolved = small_design(sys.argv[1], passes=["timing"], repetitions=3, fresh_processes=False)
run = studies.start(resolved)
steps.measure_run(run, resolved, prepared_by_hand(run))
"""


@pytest.mark.parametrize(
    ("how", "state"), [(signal.SIGINT, "cancelled"), (signal.SIGTERM, None), (signal.SIGKILL, None)]
)
def test_a_run_that_is_interrupted_leaves_no_process(tmp_path, how, state):
    env = os.environ | {"STAND_IN_SECONDS": "60", "PYTHONPATH": str(Path(__file__).parents[1])}
    with ctrl_c_works():
        process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path)], env=env, stderr=subprocess.PIPE)
    below = wait_for(lambda: len(found := descendants(process, "standin_worker")) == 2 and found)
    process.send_signal(how)
    process.communicate()
    assert all_gone(below)
    assert not any(map(alive, below))
    if state:
        (status,) = (paths.read_json(file) for file in tmp_path.glob("distilbert/*/status.json"))
        assert status["state"] == state
