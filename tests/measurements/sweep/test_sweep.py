"""The sweep: every repetition once, whatever is killed, and a run that can always be gone on with.

Most tests use a stand-in for the worker (`standin_worker.py`), since they are about what the parent keeps; one of each
kind is real.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from measuring import (
    STAND_IN,
    committed,
    ctrl_c_works,
    descendants,
    finished_once,
    prepared_by_hand,
    small_design,
    stand_in_here,
)
from waiting import alive, all_gone, wait_for

from distilbench import paths, studies
from distilbench.errors import RunError, StorageError
from distilbench.harness import processes, steps
from distilbench.measurements.sweep.measure import run as sweep
from distilbench.runs import find, parameters, rawfiles, verify
from distilbench.runs.folder import Run

TIMING = {"passes": ["timing"], "repetitions": 2}
TWO_CELLS = {"batch_sizes": [1, 2], "repetitions": 2}  # four timing repetitions, two of memory
CELL = "sdpa-float32-fixed-16-b002"


@pytest.fixture
def stand_in(monkeypatch, this_machine):
    """Repetitions take a third of a second and no torch; the environment is captured once."""
    monkeypatch.setattr(sweep, "WORKER", STAND_IN)


@pytest.fixture
def stand_in_of_this_process(monkeypatch, this_machine):
    """Repetitions take milliseconds: for what needs no process that can be killed, hang or be looked for."""
    monkeypatch.setattr(processes, "_spawn", stand_in_here)


def start(results: Path, **given) -> tuple[Run, parameters.Resolved]:
    resolved = small_design(results, **given)
    return studies.start(resolved), resolved


def measure(run: Run, resolved: parameters.Resolved) -> dict:
    return steps.measure_run(run, resolved, prepared_by_hand(run))


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Does something in a thread while the block runs; what it raises is raised."""
    problems = []

    def guarded() -> None:
        try:
            action()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    if problems:
        raise problems[0]


@contextmanager
def in_another_process(run: Run, resolved: parameters.Resolved) -> Iterator[psutil.Process]:
    """Measures with the stand-in in a fork of this process; it exits with 0, 130 when interrupted, 1 on errors."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            measure(run, resolved)
            code = 0
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    process = psutil.Process(pid)
    try:
        yield process
    finally:
        for one in (process, *descendants(pid)):
            if alive(one):
                one.kill()
        if process.is_running():
            process.wait()


def healthy(run: Run, resolved: parameters.Resolved) -> None:
    """A finished run: each repetition once, derived numbers found again, nothing left over."""
    assert finished_once(run, resolved)
    assert verify.problems(run.folder) == []
    assert run.status["state"] == "ok"
    assert run.config["design_hash"] == resolved.design_hash
    assert not (run.folder / "work").exists(), "scratch files are cleared"
    assert descendants(os.getpid(), "worker") == []


# ------------------------------------------------------------------ a real sweep


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real sweep of one cell, timing and memory, from the text file to the summary."""
    results = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DISTILBENCH_CACHE", str(results / "cache"))
        run, resolved = start(results)
        derived = steps.measure_run(run, resolved)
        return run, resolved, derived


def test_a_real_sweep_measures_everything_once(real):
    run, resolved, derived = real
    healthy(run, resolved)
    assert committed(run) == [((CELL, "timing", 0), 1, "ok"), ((CELL, "memory", 0), 1, "ok")]
    (cell,) = derived["cells"]
    assert cell["state"] == "ok"
    assert cell["latency_ms"] > 0
    assert cell["peak_rss_MiB"] > 50
    assert paths.read_json(run.folder / "summary.json") == derived


def test_a_real_run_says_what_it_measured_on(real):
    run, _, _ = real
    manifest, model = (paths.read_json(run.folder / name) for name in ("data.json", "model.json"))
    assert manifest["rows"] == 80
    assert model["source"] == "random"
    assert len(manifest["content_sha256"]) == len(manifest["tokenizer_sha256"]) == 64
    hashes = {record.model_sha256 for record in run.repetitions()}
    assert hashes == {model["sha256"]}, "all processes measured the model that is recorded"
    assert [len(seen) for seen in run.inputs_of_cells().values()] == [1]


def test_the_predictions_of_a_cell_are_there_once(real):
    run, _, _ = real
    rows = rawfiles.read_parquet(run.folder / "predictions.parquet")
    assert len(rows) == 16
    assert {row["cell"] for row in rows} == {CELL}
    assert {row["sample"] for row in rows} <= {f"tiny_reviews-{i}" for i in range(2, 82)}


def test_a_record_says_how_long_its_whole_process_took(real):
    """Start and load included: far more than the milliseconds that are measured."""
    run, _, _ = real
    for record in run.repetitions():
        assert record.seconds > 1


def test_the_parent_sleeps_and_the_neighbours_are_recorded(real):
    """A core that the parent burns is one that the measured process lacks: under 1 %, in every repetition."""
    run, _, _ = real
    for record in run.repetitions():
        assert record.parent_cores < 0.01
        assert record.foreign_cores >= 0
        assert record.stolen_cores >= 0


def test_a_finished_run_is_not_measured_again(real, monkeypatch):
    run, resolved, derived = real
    before = run.raw.read_bytes()
    monkeypatch.setattr(processes, "_spawn", lambda *_: pytest.fail("measured again"))
    assert measure(run, resolved) == derived
    assert run.raw.read_bytes() == before
    healthy(run, resolved)


@pytest.mark.parametrize(("heap", "trim"), [("system", "None"), ("keep", str(2**40))])
def test_a_worker_keeps_its_heap_where_that_is_asked(heap, trim):
    code = "import os, sys; print(os.environ.get('MALLOC_TRIM_THRESHOLD_'), file=sys.stderr)"
    assert processes._spawn((sys.executable, "-c", code), 60, 1, heap) == (0, f"{trim}\n")


def test_the_batch_table_says_shapes_and_padding(tmp_path):
    run, resolved = start(tmp_path, batch_sizes=[1, 16], samples_per_cycle=128, length_policies=["fixed-32", "longest"])
    rows = sweep.batch_table(resolved.params, prepared_by_hand(run))
    by_cell = {(row["length_policy"], row["batch_size"]): row for row in rows}
    assert [row["batches"] for row in rows] == [128, 8, 128, 8]
    assert by_cell["fixed-32", 1]["tokens"] == by_cell["fixed-32", 16]["tokens"] == "32"
    assert by_cell["longest", 1]["padding"] == 0.0, "one sentence is its own longest"
    assert "–" in by_cell["longest", 1]["tokens"]
    assert by_cell["fixed-32", 1]["padding"] == by_cell["fixed-32", 16]["padding"] > 0.4
    fixed = resolved.params.model_copy(update={"length_policies": ["fixed-32"], "batches_per_cycle": 8})
    assert [row["batches"] for row in sweep.batch_table(fixed, prepared_by_hand(run))] == [8, 8]


# ------------------------------------------------------------------ how a repetition can end


@contextmanager
def group_with_little_memory(MiB: int) -> Iterator[Path]:
    """A control group of its own below this process's one (Linux, root); a process joins it by `cgroup.procs`."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    versions = {"memory": ("memory.limit_in_bytes", "/sys/fs/cgroup/memory"), "": ("memory.max", "/sys/fs/cgroup")}
    own = next(line for line in sorted(lines, key=lambda line: line[1] != "memory") if line[1] in versions)
    limit, root = versions[own[1]]
    group = Path(root) / own[2].lstrip("/") / f"distilbench-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(MiB << 20))
    except OSError as error:
        reason = f"no control group can be made here: {error}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text().split())
    group.rmdir()


IN_GROUP = """
import os, sys
from pathlib import Path
group, results = map(Path, sys.argv[1:])
(group / "cgroup.procs").write_text(str(os.getpid()))
from measuring import STAND_IN, prepared_by_hand, small_design
from distilbench import studies
from distilbench.harness import steps
from distilbench.measurements.sweep.measure import run as sweep
sweep.WORKER = STAND_IN
resolved = small_design(results, passes=["timing"], repetitions=2)
run = studies.start(resolved)
steps.measure_run(run, resolved, prepared_by_hand(run))
"""


def test_a_kill_for_memory_is_proved_by_the_kernel(tmp_path):
    """A real control group, and a real kill by the kernel: the outcome is oom, and the cell is not tried again."""
    env = os.environ | {"STAND_IN_ENDS": "grow", "PYTHONPATH": str(Path(__file__).parents[2])}
    with group_with_little_memory(1200) as group:
        command = [sys.executable, "-c", IN_GROUP, str(group), str(tmp_path)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert [(r.status, r.error) for r in run.repetitions()] == [
        ("oom", "killed by the kernel for memory (the control group counts it)")
    ]
    assert run.status["cells"] == {"sdpa-float32-fixed-16-b002": "oom"}


def test_progress_is_told_line_by_line(stand_in_of_this_process, tmp_path, capsys):
    run, resolved = start(tmp_path)
    measure(run, resolved)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/2] sdpa fixed-16 batch 2, timing 1: 14.00 ms, ")
    assert lines[1].startswith("[2/2] sdpa fixed-16 batch 2, memory 1: peak 100 MiB")
    healthy(run, resolved)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("crash", "ValueError: a crash was asked for"),
        ("silence", "the worker ended with code 7 and said nothing"),
        ("kill", "killed by SIGKILL"),
    ],
)
def test_a_failed_repetition_is_recorded_with_its_reason_and_the_others_go_on(
    stand_in, tmp_path, monkeypatch, capsys, word, error
):
    run, resolved = start(tmp_path, **TIMING)
    monkeypatch.setenv("STAND_IN_ENDS", f"{CELL}-timing-0={word}")
    derived = measure(run, resolved)
    assert committed(run) == [((CELL, "timing", 0), 1, "failed"), ((CELL, "timing", 1), 1, "ok")]
    record = run.repetitions()[0]
    assert record.error == error
    assert record.latency_ms is None
    assert record.latency_ms_reason == "the repetition ended as failed"
    assert derived["cells"][0]["state"] == "failed"
    assert f"timing 0: failed: {error}" in derived["cells"][0]["errors"]
    assert run.status["state"] == "failed"
    assert f"not measured: {CELL} (failed)" in run.status["message"]
    assert run.status["cells"] == {CELL: "failed"}
    assert f"FAILED {error}" in capsys.readouterr().out

    monkeypatch.delenv("STAND_IN_ENDS")
    measure(*start(tmp_path, **TIMING))
    assert committed(run)[2:] == [((CELL, "timing", 0), 2, "ok")], "only that one, as its second attempt"
    healthy(run, resolved)
    assert run.status["cells"] == {CELL: "ok"}


def test_out_of_memory_ends_its_cell_only_and_is_not_tried_again(stand_in_of_this_process, tmp_path, monkeypatch):
    run, resolved = start(tmp_path, **TWO_CELLS)
    monkeypatch.setenv("STAND_IN_ENDS", f"{CELL}-timing-0=oom")
    derived = measure(run, resolved)
    mine = [entry for entry in committed(run) if entry[0][0] == CELL]
    others = [status for key, _, status in committed(run) if key[0] != CELL]
    assert mine[-1] == ((CELL, "timing", 0), 1, "oom")
    assert all(status == "ok" for *_, status in mine[:-1]), "but for those measured before"
    assert others == ["ok"] * 3
    assert {cell["cell"]: cell["state"] for cell in derived["cells"]}[CELL] == "oom"
    assert run.status["state"] == "ok", "that it does not fit is a result"
    before = run.raw.read_bytes()
    monkeypatch.delenv("STAND_IN_ENDS")
    measure(run, resolved)
    assert run.raw.read_bytes() == before
    assert verify.problems(run.folder) == []


def test_a_repetition_that_hangs_is_stopped(stand_in, tmp_path, monkeypatch):
    run, resolved = start(tmp_path, repetition_timeout_s=0.7, **TIMING)
    monkeypatch.setenv("STAND_IN_SECONDS", "60")
    started = time.monotonic()
    derived = measure(run, resolved)
    assert time.monotonic() - started < 2 * 60, "that long two take that are not stopped"
    assert committed(run) == [((CELL, "timing", i), 1, "timeout") for i in (0, 1)]
    assert run.repetitions()[0].error == "not done after repetition_timeout_s = 0.7 s"
    assert derived["cells"][0]["state"] == "timeout"
    assert run.status["state"] == "failed"
    assert descendants(os.getpid(), "standin_worker") == []


def test_a_worker_that_cannot_write_stops_the_sweep(stand_in_of_this_process, tmp_path, monkeypatch):
    """Each next repetition would end the same way."""
    run, resolved = start(tmp_path, **TIMING)
    monkeypatch.setenv("STAND_IN_ENDS", f"{CELL}-timing-1=storage")
    with pytest.raises(StorageError, match="cannot write there"):
        measure(run, resolved)
    assert [entry for entry in committed(run) if entry[2] != "ok"] == [], "not the repetition's fault"
    assert run.status["state"] == "failed"
    assert run.status["message"] == "cannot write there"
    monkeypatch.delenv("STAND_IN_ENDS")
    measure(run, resolved)
    healthy(run, resolved)


def test_iterations_without_a_record_are_set_aside(stand_in, tmp_path, monkeypatch, capsys):
    """The worker was killed after it had written them: nobody vouches for them."""
    run, resolved = start(tmp_path, **TIMING)
    monkeypatch.setenv("STAND_IN_ENDS", f"{CELL}-timing-0=late kill")
    measure(run, resolved)
    assert (run.folder / "iterations" / f"{CELL}-00.parquet").is_file()
    monkeypatch.delenv("STAND_IN_ENDS")
    measure(run, resolved)
    assert f"iterations/{CELL}-00.parquet belongs to no committed repetition" in capsys.readouterr().out
    assert (run.folder / "orphans" / f"{CELL}-00.parquet").is_file()
    healthy(run, resolved)


# ------------------------------------------------------------------ kills


@pytest.mark.parametrize("worker", ["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def test_a_killed_worker_is_recorded_and_retried_alone(request, tmp_path, monkeypatch, worker):
    """By SIGKILL, in the middle of its work."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    run, resolved = start(tmp_path, **TIMING)
    if worker == "stand-in":
        request.getfixturevalue("stand_in")
    monkeypatch.setenv("STAND_IN_SECONDS", "600")

    def kill() -> None:
        (process,) = wait_for(lambda: descendants(os.getpid(), "job.json"))
        monkeypatch.setenv("STAND_IN_SECONDS", "0")  # of those that come after it
        if worker == "real":
            time.sleep(1.0)  # it imports for longer than that
        process.kill()

    with meanwhile(kill):
        steps.measure_run(run, resolved)
    assert [(attempt, status) for _, attempt, status in committed(run)] == [(1, "failed"), (1, "ok")]
    assert run.repetitions()[0].error == "killed by SIGKILL"
    assert run.status["state"] == "failed"
    assert verify.problems(run.folder) == [], "what was measured is whole all the same"

    again, _ = start(tmp_path, **TIMING)
    assert again.run_id == run.run_id
    steps.measure_run(again, resolved)
    assert committed(run)[2:] == [((CELL, "timing", 0), 2, "ok")]
    healthy(run, resolved)


def test_a_parent_that_is_killed_again_and_again_loses_and_doubles_nothing(stand_in, tmp_path, monkeypatch):
    """At seven moments of the work; each start goes on in the same run."""
    monkeypatch.setenv("STAND_IN_SECONDS", "0.05")
    run, resolved = start(tmp_path, **TWO_CELLS)
    before = b""
    for lines, seconds_more in ((0, 0.0), (0, 0.25), (1, 0.0), (1, 0.4), (2, 0.15), (3, 0.3), (4, 0.05)):
        again, _ = start(tmp_path, **TWO_CELLS)
        assert again.run_id == run.run_id
        with in_another_process(run, resolved) as parent:
            wait_for(lambda n=lines: run.in_use and (n == 0 or (run.raw.exists() and len(committed(run)) >= n)))
            time.sleep(seconds_more)
            workers = descendants(parent.pid, "standin_worker")
            parent.kill()
            assert parent.wait() == -signal.SIGKILL
            assert all_gone(workers), "no worker lives on to disturb the next"
        wait_for(lambda: run.status["state"] in ("pending", "cancelled"), "it does not say running for ever")
        now = run.raw.read_bytes() if run.raw.exists() else b""
        assert now.startswith(before), "what was committed stays"
        before = now
    measure(run, resolved)
    healthy(run, resolved)


SWEEP = """
import sys
from measuring import small_design
from distilbench import studies
from distilbench.harness import steps
resolved = small_design(sys.argv[1], **eval(sys.argv[2]))
steps.measure_run(studies.start(resolved), resolved)
"""


def start_real(results: Path, given: dict) -> subprocess.Popen:
    """A sweep with the real worker in a process of its own."""
    env = os.environ | {"DISTILBENCH_CACHE": str(results / "cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", SWEEP, str(results), repr(given)], env=env, stdout=subprocess.PIPE)


def only_run(results: Path) -> Run:
    (run,) = find.all_runs(results / "distilbert")
    return run


@pytest.mark.slow  # the same of a whole command, kernel and worker: tests/cli/test_main.py, which kills and interrupts
def test_a_killed_sweep_takes_its_worker_with_it_and_is_gone_on_with(tmp_path, monkeypatch):
    """All real: the sweep is killed while the worker of the second repetition is at work."""
    parent = start_real(tmp_path, TIMING)
    try:
        assert parent.stdout.readline().startswith(b"[1/2]")
        workers = wait_for(lambda: descendants(parent, "job.json"))
        time.sleep(1.0)
        parent.kill()
        assert all_gone(workers), "it ends with its parent"
    finally:
        parent.kill()
        parent.communicate()
    run, resolved = only_run(tmp_path), small_design(tmp_path, **TIMING)
    first = run.raw.read_bytes()
    assert first.count(b"\n") == 1
    assert run.status["state"] == "cancelled"
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    again = studies.start(resolved)
    assert again.run_id == run.run_id
    steps.measure_run(again, resolved)
    assert run.raw.read_bytes().startswith(first)
    assert len(committed(run)) == 2
    healthy(run, resolved)


@pytest.mark.slow
def test_five_kills_of_a_real_sweep_at_any_moment(tmp_path, monkeypatch):
    resolved = small_design(tmp_path, **TWO_CELLS)
    for moment in (3.0, 6.5, 9.7, 12.1, 14.9):
        parent = start_real(tmp_path, TWO_CELLS)
        time.sleep(moment)
        workers = descendants(parent, "job.json")
        parent.kill()
        parent.communicate()
        assert all_gone(workers)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    run = studies.start(resolved)
    steps.measure_run(run, resolved)
    healthy(only_run(tmp_path), resolved)


@pytest.mark.slow
def test_thirty_kills_at_random_moments_change_nothing(stand_in, tmp_path, monkeypatch):
    """Of the sweep or of its worker, on a null workload; in the end the run is as an undisturbed one."""
    monkeypatch.setenv("STAND_IN_SECONDS", "0.1")
    moments = random.Random(30)
    given = {"batch_sizes": [1, 2], "repetitions": 25, "passes": ["timing"]}
    run, resolved = start(tmp_path / "disturbed", **given)
    before, kills = b"", 0
    while kills < 30:
        with in_another_process(run, resolved) as parent:
            wait_for(lambda: run.in_use)
            time.sleep(moments.uniform(0.0, 1.0))
            victims = descendants(parent.pid, "standin_worker") if moments.random() < 0.5 else []
            for victim in victims or [parent]:
                victim.kill()
            kills += 1
            time.sleep(0.1 if victims else 0)
            parent.kill()
            parent.wait()
        now = run.raw.read_bytes() if run.raw.exists() else b""
        assert now.startswith(before), "what was committed stays"
        before = now
    assert before.count(b"\n") < 50, "it was disturbed to the end"
    measure(run, resolved)
    healthy(run, resolved)
    other, same = start(tmp_path / "undisturbed", **given)
    measure(other, same)
    assert run.config["design_hash"] == other.config["design_hash"]
    assert run.config["cells"] == other.config["cells"]
    assert sorted(record.key for record in run.measured()) == sorted(record.key for record in other.measured())


def test_an_interrupted_sweep_says_so_and_is_gone_on_with(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.3")
    run, resolved = start(tmp_path, **TWO_CELLS)
    with ctrl_c_works(), in_another_process(run, resolved) as parent:
        wait_for(lambda: run.raw.exists() and len(committed(run)) >= 2)
        (at_work,) = wait_for(lambda: descendants(parent.pid, "standin_worker"))
        parent.send_signal(signal.SIGINT)
        wait_for(lambda: not alive(parent), "it ends")
        assert parent.wait() == 130
        assert all_gone([at_work])
    assert run.status["state"] == "cancelled"
    assert run.status["message"] == f"interrupted; to resume: distilbench run distilbert --resume {run.run_id}"
    done = len(committed(run))
    assert 2 <= done < 6
    assert studies.start(resolved).run_id == run.run_id
    measure(run, resolved)
    assert len(committed(run)) == 6
    healthy(run, resolved)


def test_a_second_start_on_the_same_run_is_refused(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "60")
    run, resolved = start(tmp_path)
    with in_another_process(run, resolved) as parent:
        wait_for(lambda: descendants(parent.pid, "standin_worker"))
        assert run.in_use
        assert run.status["state"] == "running"
        with pytest.raises(RunError, match=f"{run.run_id} is being worked on by another process .*{parent.pid}"):
            measure(run, resolved)
        assert studies.start(resolved).run_id != run.run_id, "a start without a name takes a new one"
        assert len(descendants(parent.pid, "standin_worker")) == 1, "the first one goes on undisturbed"
    assert not run.in_use


# ------------------------------------------------------------------ no space left


@pytest.fixture
def small_results(tmp_path):
    """Results on a real file system of 640 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 1024):
                pass
        except OSError:
            return filler


@pytest.mark.parametrize("done_before", [0, 1, 3])
def test_a_disk_that_fills_up_damages_nothing(stand_in, small_results, monkeypatch, done_before):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.2")
    run, resolved = start(small_results, **TWO_CELLS)

    def run_full() -> None:
        wait_for(lambda: len(committed(run)) >= done_before and descendants(os.getpid(), "standin_worker"))
        fill(small_results)

    with meanwhile(run_full), pytest.raises(StorageError, match=r"cannot write .*: No space left on device"):
        measure(run, resolved)
    whole = run.raw.read_bytes() if run.raw.exists() else b""
    assert whole.count(b"\n") == len(committed(run)) >= done_before
    assert not whole or whole.endswith(b"\n")
    for name in ("config.json", "env.json", "status.json"):
        json.loads((run.folder / name).read_text())
    for record in run.repetitions():
        if record.iterations_file:
            rawfiles.read_parquet(run.folder / record.iterations_file, record.iterations_sha256)
    assert run.status["state"] in ("cancelled", "failed"), "it does not claim to be running"

    (small_results / "filler").unlink()
    again = studies.start(resolved)
    assert again.run_id == run.run_id
    measure(again, resolved)
    assert run.raw.read_bytes().startswith(whole)
    healthy(run, resolved)


def test_the_worker_is_given_as_a_command_that_python_runs():
    """The seam that the tests above use is the real one."""
    assert (sys.executable, "-P", "-m", "distilbench.harness") == processes.WORKER
