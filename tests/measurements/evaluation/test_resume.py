"""An evaluation that is killed at any moment goes on, and gives what an undisturbed one gives, to the last digit.

The processes that are killed are real ones; they are forked from one that has imported torch, which takes seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from evaluating import CELL, checkpoint, job, made_up_rows, prepared, resolved
from waiting import wait_for

from distilbench import paths
from distilbench.errors import DataError
from distilbench.harness import steps
from distilbench.harness.fork_server import ForkServer
from distilbench.harness.processes import WORKER
from distilbench.measurements.evaluation.measure import chunks
from distilbench.measurements.evaluation.records import EvaluationRecord, predictions_name
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet

ROWS, KILLS = 2000, 10


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return made_up_rows(tmp_path_factory.mktemp("data") / "rows.tsv", ROWS)


class Processes:
    """Forks of the real worker, one at a time; `begun` is when the last one was forked."""

    def __init__(self) -> None:
        here = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        here |= {"DISTILBENCH_PARENT": str(os.getpid()), "TOKENIZERS_PARALLELISM": "false"}
        self.server = ForkServer((*WORKER, "preloaded"), here)
        assert self.server.ready(300)

    def run(self, file: Path, kill_when=None) -> int:
        """Runs one to its end, or kills it (-9) as soon as `kill_when` says so; its exit code."""
        ended: list[int] = []
        waiting = threading.Thread(target=lambda: ended.append(self._wait(file)))
        waiting.start()
        if kill_when:
            (fork,) = wait_for(lambda: psutil.Process(self.server.process.pid).children(), pause_s=0.001)
            wait_for(lambda: kill_when() or not waiting.is_alive(), pause_s=0.001)
            if waiting.is_alive():
                os.kill(fork.pid, signal.SIGKILL)
        waiting.join()
        return ended[0]

    def _wait(self, file: Path) -> int:
        code, said, _ = self.server.run(file, 300)
        if code:
            print(said, file=sys.stderr)
        assert self.server.ready(300)
        return code


@pytest.fixture(scope="module")
def processes():
    made = Processes()
    yield made
    made.server.end()


def begin(tmp_path: Path, model: Path, data: Path) -> tuple[Run, Path]:
    """A run with its rows prepared, and the file that its process reads."""
    design = resolved(tmp_path / "results", model, data)
    run, shared = prepared(design)
    file = run.folder / "work" / "job.json"
    job(run, design, shared).save(file)
    return run, file


def record_of(file: Path) -> EvaluationRecord:
    return EvaluationRecord.model_validate_json(file.with_suffix(".record.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, model, data, processes) -> tuple[Run, EvaluationRecord]:
    run, file = begin(tmp_path_factory.mktemp("undisturbed"), model, data)
    assert processes.run(file) == 0
    return run, record_of(file)


QUALITY = ("accuracy", "accuracy_wilson_95", "macro_f1", "weighted_f1", "per_class", "confusion", "rows", "rows_sha256")


def same_quality(one: EvaluationRecord, other: EvaluationRecord) -> bool:
    name = predictions_name(CELL)
    same = all(getattr(one, field) == getattr(other, field) for field in QUALITY)
    return same and one.files_sha256[name] == other.files_sha256[name]


def test_killed_at_ten_random_moments_it_gives_the_same_to_the_last_digit(
    tmp_path, model, data, processes, undisturbed
):
    run, file = begin(tmp_path, model, data)
    place, whole = chunks.place(run.folder, CELL), chunks.place(undisturbed[0].folder, CELL).stat().st_size
    moments = random.Random(11)  # by what is committed then, so that all kills fall into the evaluation
    for share in sorted(moments.uniform(0.02, 0.8) for _ in range(KILLS)):
        wanted = share * whole
        code = processes.run(file, lambda wanted=wanted: place.exists() and place.stat().st_size >= wanted)
        assert code == -signal.SIGKILL, "it was killed before its end"
    assert processes.run(file) == 0
    record, (_, expected) = record_of(file), undisturbed
    assert record.rows == ROWS
    assert same_quality(record, expected)
    assert 1 < record.processes <= KILLS + 1
    rows = read_parquet(run.folder / predictions_name(CELL))
    assert [row["row"] for row in rows] == list(range(1, ROWS + 1)), "every row once"
    assert record.total_s <= record.elapsed_s + 0.01
    assert len({json.dumps(one) for one in record.confusion.values()}) > 1, "the model tells classes apart"
    assert sum(count > 0 for row in record.confusion.values() for count in row.values()) > 10


# ------------------------------------------------------------------ the whole run

WHOLE = """
import sys
from evaluating import resolved
from pathlib import Path
from distilbench import studies
from distilbench.harness import steps
design = resolved(*map(Path, sys.argv[1:]))
run = studies.start(design)
print("ready", flush=True)
steps.measure_run(run, design)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model, data) -> tuple[Run, object, int]:
    """A run whose parent is killed (-9) in the middle, and what it had committed by then."""
    folder = tmp_path_factory.mktemp("whole")
    design = resolved(folder / "results", model, data)
    tests = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", WHOLE, str(folder / "results"), str(model), str(data)],
        env=os.environ | {"PYTHONPATH": tests}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    (folder_of_run,) = (folder / "results" / "evaluate").iterdir()
    place = chunks.place(folder_of_run, CELL)
    wait_for(lambda: (place.exists() and place.read_bytes().count(b"\n") > 20) or process.poll() is not None)
    process.kill()
    process.communicate()
    wait_for(lambda: not paths.is_locked(place.with_suffix(".lock")))
    return Run(folder_of_run), design, place.read_bytes().count(b"\n")


def test_a_damaged_row_is_named_and_stops_nothing_that_was_done(whole, data):
    run, design, done = whole
    place, good = chunks.place(run.folder, CELL), data.read_bytes()
    assert 20 < done < ROWS // 8
    lines = good.split(b"\n")
    lines[ROWS // 2] = b"music\tto\xffrn"
    data.write_bytes(b"\n".join(lines))
    try:
        with pytest.raises(DataError, match=rf"1 of 2,000 rows cannot be used: line {ROWS // 2 + 1}: byte 0xff"):
            steps.measure_run(run, design)
        assert run.status["state"] == "failed"
        assert f"line {ROWS // 2 + 1}" in run.status["message"]
        assert place.read_bytes().count(b"\n") == done
    finally:
        data.write_bytes(good)


def test_a_run_whose_parent_was_killed_goes_on(whole, undisturbed, capfd):
    run, design, done = whole
    steps.measure_run(run, design)
    run.require_ok()
    (record,) = run.measured()
    assert record.processes == 2
    assert same_quality(record, undisturbed[1])
    assert verify.problems(run.folder) == []
    assert not (run.folder / "work").exists(), "what was kept for going on is gone"
    said = capfd.readouterr().out
    total = ROWS // 8
    assert f"[{total}/{total}] {CELL}: {ROWS:,} of {ROWS:,} rows" in said
    assert f"[{done}/{total}]" not in said
