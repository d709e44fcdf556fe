"""The process of a step: it trains by itself, or starts as many as the configuration has, under torchrun.

What ends one of them ends all; of what they say, that of the one with which it began is told.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.machine import cgroups
from distilbench.measurements.training.measure.spec import TrainingSpec

WORKER = "distilbench.measurements.training.measure.worker"


def main(file: Path) -> int:
    """Measures; 0 when a record was written beside the job, else the reason is there."""
    job = TrainingSpec.load(file)
    if job.identity["processes"] == 1:
        from distilbench.measurements.training.measure import worker

        return worker.main(file)
    return many(file, job)


def many(file: Path, job: TrainingSpec) -> int:
    """Under torchrun, on this machine."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    count, kills = job.identity["processes"], cgroups.oom_kills()
    threads = str(max(1, job.protocol["num_threads"] // count))
    # each process is tied to this one, as this one is to its parent: none is left behind
    os.environ |= {"DISTILBENCH_PARENT": str(os.getpid()), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    words = ["--standalone", f"--nproc-per-node={count}", "-m", "distilbench.harness", WORKER, str(file)]
    try:
        torchrun.main(words)
    except ChildFailedError as error:
        failure = failure_of(file, {rank: one.exitcode for rank, one in error.failures.items()}, count)
        if failure["status"] == "failed" and cgroups.killed_since(kills):
            failure = {"status": "oom", "error": "killed by the kernel for memory (the control group counts it)"}
        paths.write_json(file.with_suffix(".failure.json"), failure)
        return 1
    of_rank(file, 0).with_suffix(".record.json").replace(file.with_suffix(".record.json"))
    return 0


def of_rank(file: Path, rank: int) -> Path:
    """The job as a process of a group names what it leaves beside it."""
    return file.with_name(f"{file.stem}.rank{rank}.json")


def failure_of(file: Path, codes: dict[int, int], count: int) -> dict[str, Any]:
    """Why a group failed: what the process says that did not only end since another one did.

    Args:
        codes: exit codes of processes that ended by themselves, by rank.
    """
    from distilbench.training.ranks import says_another_ended

    left = {rank: of_rank(file, rank).with_suffix(".failure.json") for rank in range(count)}
    said = {rank: paths.read_json(place) for rank, place in left.items() if place.is_file()}
    own = {rank: one for rank, one in said.items() if not says_another_ended(one["error"])}
    for rank, one in sorted(own.items()):
        return one if one["status"] == "preempted" else one | {"error": f"rank {rank}: {one['error']}"}
    killed = {rank: -code for rank, code in codes.items() if code < 0 and rank not in said}
    for rank, number in sorted(killed.items()):
        return {"status": "failed", "error": f"rank {rank} was killed by {signal.Signals(number).name}"}
    rank, one = min(said.items(), default=(min(codes, default=0), {"status": "failed", "error": "it said nothing"}))
    return one | {"error": f"rank {rank}: {one['error']}"}
