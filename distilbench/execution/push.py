"""Runs brought elsewhere: rsync to a path, a host or a daemon, compared by checksum afterwards; nothing is deleted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

from distilbench.errors import DistilbenchError, ParameterError, StorageError
from distilbench.runs.folder import Run

LEFT_OUT = (".lock", "work")  # what only the machine needs, while it measures
WAIT_S = 5.0  # before the second try; doubled before each one after it
#: Exit values of rsync(1) after which trying again helps nobody.
FINAL = {1: "wrong options", 2: "protocol", 3: "wrong files or folders", 4: "not supported", 6: "its log"}
OTHER = re.compile(r"(?:[<>]f|cL)\S{9} (.+)")  # of what it lists, a file or link that is not the same (a banner is not)
#: A file appears under its name only when it is whole, and one that was cut off is resumed.
COPY = ("--archive", "--partial-dir=.rsync-partial", "--delay-updates", "--timeout=60")
COMPARE = ("--recursive", "--links", "--checksum", "--dry-run", "--out-format=%i %n")  # what a second copy would send


def push(run: Run, to: str = "", tries: int = 3) -> tuple[int, str]:
    """Copies a run below a place and compares every file there with the one here by checksum.

    The place is a folder, host:folder or rsync://host/module; "" takes $RESULTS_DEST. Returns how many files there are,
    and where the run is now. Whatever fails, everything here is as it was.
    """
    if not (top := to or os.environ.get("RESULTS_DEST", "")):
        raise ParameterError(
            "no destination: give --to, or set RESULTS_DEST (in slurm/site.env): a path, host:path, rsync://…"
        )
    if not shutil.which("rsync"):
        raise DistilbenchError("rsync is not on the PATH: install it, or copy the run folder by other means")
    top = top.rstrip("/") + "/"
    place = f"{top}{run.config['study']}/{run.run_id}"
    for attempt in range(1, tries + 1):
        done = _rsync(run, top, *COPY)
        if done.returncode == 0:
            break
        why = "; ".join(done.stderr.strip().splitlines()[-3:]) or f"rsync ended with code {done.returncode}"
        if attempt == tries or done.returncode in FINAL:
            raise StorageError(f"run {run.run_id} could not be copied to {place}, tried {attempt} times: {why}")
        time.sleep(WAIT_S * 2 ** (attempt - 1))
    if different := _different(run, top):
        listed = ", ".join(different[:5])
        raise StorageError(f"{len(different)} files in {place} are not those of run {run.run_id}: {listed}")
    files = (file.relative_to(run.folder) for file in run.folder.rglob("*") if file.is_file())
    return sum(not {*LEFT_OUT} & {*file.parts} for file in files), place


def _different(run: Run, top: str) -> list[str]:
    """Files that are missing or other there."""
    done = _rsync(run, top, *COMPARE)
    if done.returncode:
        raise StorageError(f"what was copied to {top} could not be compared: {done.stderr.strip()}")
    return [match[1] for line in done.stdout.splitlines() if (match := OTHER.fullmatch(line))]


def _rsync(run: Run, top: str, *options: str) -> subprocess.CompletedProcess[str]:
    left_out = [f"--exclude={name}" for name in LEFT_OUT]
    source = f"{run.folder.parent.parent}/./{run.config['study']}/{run.run_id}/"  # --relative cuts at the dot
    command = ["rsync", "--relative", *options, *left_out, source, top]
    return subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="replace")
