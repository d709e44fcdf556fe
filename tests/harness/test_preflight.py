"""What must hold before a run folder is made; real limits, real variables, real file systems, in real processes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import IN_CI
from measuring import checkout_with_notebooks, small_design

from distilbench import paths
from distilbench.errors import DeviceError, StorageError
from distilbench.harness import preflight, processes
from distilbench.machine import environment
from distilbench.measurements.sweep.measure import run as sweep
from distilbench.runs.folder import Run

CLI = [*paths.PYTHON, "-m", "distilbench.cli.main"]
RUN = [*CLI, "run", "distilbert", "--profile", "ci"]
TWO_CORES = pytest.mark.skipif(environment.usable_cores() < 2, reason="one thread cannot be limited further")


@pytest.fixture
def refused(tmp_path):
    """Starts a run under a shell's prefix and variables; what it said in its one line, having made no folder."""

    def start(prefix: str = "", **variables: str) -> str:
        env = os.environ | {"HF_HUB_OFFLINE": "1"} | variables
        command = ["bash", "-c", f'{prefix} exec "$@"', "bash", *RUN]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert not (tmp_path / "results").exists(), "nothing is left"
        return done.stderr

    return start


# ------------------------------------------------------------------ open files


@pytest.mark.parametrize("limit", [10, 24, 64])
def test_too_few_open_files_are_said_before_a_folder_is_made(refused, limit):
    said = refused(f"ulimit -n {limit};")
    assert said.startswith(f"error: this process may open {limit} files, and a run needs {preflight.OPEN_FILES}")
    assert f"`ulimit -n {preflight.OPEN_FILES}`" in said


def test_the_soft_limit_is_raised_where_the_hard_one_allows_it():
    code = (
        "import resource; from distilbench.harness import preflight; preflight.open_files(); "
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    shell = f'ulimit -Sn 24; ulimit -Hn 400; exec "{sys.executable}" -P -c "{code}"'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(preflight.OPEN_FILES), "400"]


@pytest.mark.parametrize("limits", [(1024, 4096), (512, resource.RLIM_INFINITY)])
def test_a_limit_that_suffices_is_left_alone(monkeypatch, limits):
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it was changed"))
    preflight.open_files()


# ------------------------------------------------------------------ HOME and the cache


@pytest.fixture
def no_places(monkeypatch):
    """No variable says where the cache is."""
    monkeypatch.delenv("DISTILBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_a_home_that_cannot_be_written_is_named_before_a_folder_is_made(refused, no_places):
    said = refused(HOME="/proc/self/absent")
    assert "HOME=/proc/self/absent" in said
    assert "set HOME or DISTILBENCH_CACHE" in said
    assert "--results-root" not in said


def test_with_a_cache_elsewhere_such_a_home_does_not_matter(no_places, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/self/absent")
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path))
    preflight.cache()
    monkeypatch.setenv("DISTILBENCH_CACHE", "/proc/self/absent")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError) as caught:
        preflight.cache()
    assert "HOME" not in str(caught.value), "it is not at fault"


# ------------------------------------------------------------------ threads


@TWO_CORES
def test_a_variable_that_takes_threads_away_is_said_before_a_folder_is_made(refused):
    said = refused(OMP_THREAD_LIMIT="1")
    assert said.startswith(f"error: {environment.usable_cores()} threads were asked for and 1 computed")
    assert "set are OMP_THREAD_LIMIT=1" in said
    assert "-p num_threads 1" in said


def test_without_such_a_variable_no_process_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_spawn", lambda *_: pytest.fail("it was"))
    monkeypatch.setattr(environment, "variables_of_threads", list)
    preflight.threads(small_design(tmp_path).params)
    monkeypatch.setattr(environment, "variables_of_threads", lambda: ["OMP_DYNAMIC=true"])
    params = small_design(tmp_path).params.model_copy(update={"device": "cuda:0"})
    preflight.threads(params)  # where a GPU computes


@TWO_CORES
def test_ceilings_of_fewer_threads_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    sweep.once(Run(tmp_path), small_design(tmp_path, ceiling_s=0.01).params)
    found = paths.read_json(tmp_path / "ceilings.json")
    assert list(found) == ["reason"]
    assert "1 computed" in found["reason"]


def test_cores_of_a_task_that_are_no_number_are_said_before_a_folder_is_made(refused):
    said = refused(SLURM_CPUS_PER_TASK="x")
    assert said.startswith("error: SLURM_CPUS_PER_TASK is 'x', and must be a whole number of cores from 1")


@pytest.mark.parametrize("given", ["x", "-1", "0", "1.5", "²"])
def test_only_whole_cores_of_a_task_are_accepted(monkeypatch, given):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    with pytest.raises(DeviceError, match="must be a whole number of cores from 1"):
        environment.usable_cores()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert environment.usable_cores() == 1


# ------------------------------------------------------------------ file systems


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path, number):
    """A real process whose C library refuses, as that of a node does whose file system is mounted without locks."""
    compiler = shutil.which("cc")
    if compiler is None:
        assert not IN_CI, "CI has a compiler"
        pytest.skip("no C compiler here")
    library, place = tmp_path / "no_locks.so", tmp_path / "results"
    source = Path(__file__).parents[1] / "data" / "no_locks.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    env = {"LD_PRELOAD": str(library), "NO_LOCKS_BELOW": str(place), "NO_LOCKS_ERROR": str(number)}
    done = subprocess.run(RUN, env=os.environ | env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"error: {place}")
    assert f"has no file locks ({os.strerror(number)})" in done.stderr
    assert not place.exists(), "nothing is left"
    cached = subprocess.run(
        RUN, env=os.environ | env | {"NO_LOCKS_BELOW": "/"}, capture_output=True, text=True, check=False
    )
    assert "NO FILE LOCKS" in cached.stderr
    assert not place.exists(), "nothing is left"


FULL = 'mount -t tmpfs -o size=200k tmpfs "$1" || exit 99; shift'  # in a mount namespace of its own
GREAT = "ulimit -f 200; shift"  # where nothing may be mounted: in units of 1,024 bytes


def test_a_disk_that_fills_up_below_papermill_leaves_a_run_that_says_so(tmp_path):
    """The notebook that could not be written makes room for the state of the run."""
    results = tmp_path / "small"
    results.mkdir()
    checkout = checkout_with_notebooks(tmp_path / "checkout", one="print('x' * 400_000)")
    env = os.environ | {"DISTILBENCH_ROOT": str(checkout), "DISTILBENCH_RESULTS": str(results)}
    shell = '"$@"; code=$?; cat "$DISTILBENCH_RESULTS"/*/*/status.json; exit $code'

    def run(prepare: str, *namespace: str) -> subprocess.CompletedProcess:
        command = [*namespace, "bash", "-c", f"{prepare}; {shell}", "bash", str(results), *RUN]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    done = run(FULL, "unshare", "--mount")
    if done.returncode not in (0, 1):
        assert os.geteuid() != 0 or IN_CI, f"root cannot mount here: {done.stderr}"
        done = run(GREAT)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert '"state": "failed"' in done.stdout, done.stdout + done.stderr
