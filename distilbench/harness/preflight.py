"""What must hold before a run folder is made: cheap checks, so that a start that cannot work leaves nothing behind."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

from distilbench import paths
from distilbench.errors import DeviceError, StorageError
from distilbench.harness import processes
from distilbench.machine import environment
from distilbench.runs import find
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import Resolved, StudyParams

OPEN_FILES = 256  # a kernel with torch and transformers needs between 64 and 96; devices and the hub need more
THREADS_CHECK = "distilbench.collectors.threads"
THREADS_CHECK_S = 120.0  # most of it is the import of torch


def start(resolved: Resolved, kind: Measurement, new: bool = False, sections: find.Sections = find.NO_SECTIONS) -> Run:
    """The run to work on: the one that `find.to_resume` finds, else a new one; no folder is made where a check fails.

    Raises:
        DistilbenchError: the device or the home folder is not there, or what the other checks and `find` say.
    """
    params = resolved.params
    paths.home()  # Jupyter and libraries look for it
    open_files()  # before git and locks need some
    if params.device != "cpu":
        from distilbench.machine.device import parse  # imports torch

        parse(params.device)
    find.warn_of_code_without_commit(params.profile)
    if run := find.to_resume(resolved, new):
        return run
    cache()
    threads(params)
    return find.create(resolved, kind, sections=sections)


def open_files() -> None:
    """Raises this process's soft limit on open files to what kernels and workers need; they inherit it.

    Raises:
        StorageError: the hard limit does not allow that many.
    """
    soft, hard = open_files_allowed()
    if hard < OPEN_FILES:
        raise StorageError(
            f"this process may open {hard:.0f} files, and a run needs {OPEN_FILES}: raise the hard limit "
            f"(`ulimit -n {OPEN_FILES}` as root, /etc/security/limits.conf, the batch system's limits), then run again"
        )
    if soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def open_files_allowed() -> tuple[float, float]:
    """The soft and the hard limit on open files; infinite where there is none."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (float("inf") if limit == resource.RLIM_INFINITY else float(limit) for limit in limits)
    return soft, hard


def cache() -> None:
    """Sees that the cache can be written: hashes are noted there, whatever the source.

    Raises:
        StorageError: it cannot; it names HOME where the cache is below it.
    """
    home, place = paths.home(), paths.cache_root()
    if trouble := paths.trouble_with(place):
        below = f"it is below your home folder, HOME={home}: set HOME or " if home in place.parents else "set "
        raise StorageError(
            f"the cache {place} cannot be used: {trouble}; {below}DISTILBENCH_CACHE to "
            "a folder that you may write, on a file system with locks"
        )


def threads(params: StudyParams) -> None:
    """Measures in a fresh process that all threads compute, where a variable is set that may keep some from it.

    Each repetition measures it again; without such a variable that is soon enough.

    Raises:
        DeviceError: fewer compute than are asked for.
    """
    job = {"num_threads": processes.cores(params.num_threads)["num_threads"]}
    if params.device != "cpu" or not environment.variables_of_threads():
        return
    with tempfile.TemporaryDirectory() as folder:
        job_file = Path(folder) / "threads.json"
        if why := processes.failure_of((*processes.WORKER, THREADS_CHECK), job_file, job, THREADS_CHECK_S):
            raise DeviceError(why)
