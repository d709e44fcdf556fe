"""Stands in for the worker where a test is about what the sweep keeps: the same files, made-up numbers, no torch.

python standin_worker.py JOB.json (or `main` in the test's own process: see `measuring.stand_in_here`)
python standin_worker.py -: forked for each JOB.json, as the real one

$STAND_IN_SECONDS: how long it pretends to measure. $STAND_IN_ENDS: how it ends instead of with a record, as
`WORD` for every repetition or `CELL-PASS-REPETITION=WORD` for one: crash, oom, silence, storage, kill, or
grow (by 2 GiB).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import synthetic

from distilbench import paths
from distilbench.harness.__main__ import file_of, tie_to_parent
from distilbench.measurements.sweep import records
from distilbench.measurements.sweep.summary import derive
from distilbench.runs import rawfiles


def main(job_file: Path) -> None:
    """Writes the record of the job, or ends as it was told to."""
    job = json.loads(job_file.read_text())
    who, word = job["identity"], ending(job["identity"])
    time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
    if word == "crash":
        raise ValueError("a crash was asked for")
    if word == "oom":
        fail(job_file, "oom", "not enough memory was asked for", 3)
    if word == "storage":
        fail(job_file, "storage", "cannot write there", 1)
    if word == "silence":
        sys.exit(7)
    if word == "grow":
        print(len(b"x" * (2 << 30)))
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    fields = timing(Path(job["run"]), who, word) if who["pass"] == "timing" else memory()
    record = records.Repetition(**who, **fields, status="ok", started="2026-11-22T14:15:00Z", seconds=0.1)
    paths.write_atomic(job_file.with_suffix(".record.json"), record.to_line())


def ending(who: dict) -> str:
    which, _, word = os.environ.get("STAND_IN_ENDS", "").rpartition("=")
    return word if which in ("", f"{who['cell']}-{who['pass']}-{who['repetition']}") else ""


def fail(job_file: Path, status: str, error: str, code: int) -> None:
    paths.write_json(job_file.with_suffix(".failure.json"), {"status": status, "error": error})
    sys.exit(code)


def timing(run: Path, who: dict, word: str) -> dict:
    rows = synthetic.iterations(who["batch_size"], who["repetition"])
    predicted = synthetic.predictions(who["cell"])
    file = f"iterations/{who['cell']}-{who['repetition']:02d}.parquet"
    digest = rawfiles.write_parquet(run / file, rows, records.ITERATIONS)
    if word == "late kill":  # the files are there, the record is not
        os.kill(os.getpid(), signal.SIGKILL)
    rawfiles.write_parquet(run / "work" / f"{who['cell']}.predictions.parquet", predicted, records.PREDICTIONS)
    fields = derive.timing_fields(rows) | derive.classification_fields(predicted, True)
    files = {"iterations_file": file, "iterations_sha256": digest}
    return fields | {"warmup": synthetic.warmup_of(rows)} | files | {"inputs_sha256": "0" * 64}


def memory() -> dict:
    absent = {f"peak_cuda_{what}_MiB_reason": "made up" for what in ("allocated", "reserved")}
    return {"peak_rss_MiB": 100.0, "inputs_sha256": "0" * 64} | absent


if __name__ == "__main__":
    tie_to_parent()
    main(file_of(sys.argv[1]))
