"""Fixtures for all tests: nothing is written into the checkout, and a small finished run costs milliseconds."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import synthetic
import yaml
from left_behind import pytest_configure, pytest_sessionfinish  # noqa: F401 - hooks

from distilbench.machine import code, conditions, environment
from distilbench.runs.folder import Run

IN_CI = os.environ.get("CI") == "true"
#: What the processes that tests start do without (see the modules in it), and this one, too.
LEANER = str(Path(__file__).parent / "leaner")
if LEANER not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [LEANER, os.environ.get("PYTHONPATH")]))
#: Threads of a product that wait for each other sleep: on cores that others use they would spin for most of the time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of them compiles the package for itself


#: Files that take minutes, by the beginning of their path here: first, so that none runs alone in the end.
LONG = ("whole/test_cluster", "whole/", "publication/", "project/test_contributing", "cli/", "measurements/sweep/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long files first (`--no-loadscope-reorder`: workers take whole files in this order)."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    path = str(item.path).removeprefix(f"{Path(__file__).parent}/")
    return next((i for i, beginning in enumerate(LONG) if path.startswith(beginning)), len(LONG))


def _point_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILBENCH_RESULTS", str(folder / "results"))
    monkeypatch.setenv("DISTILBENCH_CHECKPOINTS", str(folder / "checkpoints"))
    monkeypatch.setenv("DISTILBENCH_REVISIONS_LOCK", str(folder / "revisions.lock"))
    monkeypatch.delenv("DISTILBENCH_PROFILE", raising=False)
    monkeypatch.delenv("DISTILBENCH_PROGRESS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def places_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What fixtures of a wider scope than one test write goes nowhere near the checkout either."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _point_to(tmp_path_factory.mktemp("session"), monkeypatch)
        yield


@pytest.fixture(autouse=True)
def places_of_this_test(places_of_this_session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has results and a lock of its own. The cache stays: the embedded packages are in it."""
    _point_to(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def log_of_this_test() -> Iterator[None]:
    """A command that ran in this process leaves no handler to the next test: its stream is gone by then."""
    log = logging.getLogger("distilbench")
    handlers, propagate, level = log.handlers[:], log.propagate, log.level
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture(scope="session")
def captured() -> dict:
    """The real environment, captured once."""
    return environment.capture()


@pytest.fixture
def this_machine(captured: dict, monkeypatch: pytest.MonkeyPatch) -> dict:
    """What `environment.capture` says during this test: the real environment, which the test may change."""
    env = copy.deepcopy(captured)
    monkeypatch.setattr(environment, "capture", lambda: copy.deepcopy(env))
    return env


@pytest.fixture
def declare_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declares for this test which other measuring code measures as the present one (or as `present`) does."""
    monkeypatch.setattr(conditions, "ALIKE", tmp_path / "measures_alike.yml")

    def declare(*others: str, present: str = "") -> None:
        known = {"measuring_sha256": present or code.measuring_sha256(), "not_alike": []}
        known["alike"] = [{"measuring_sha256": one, "commit": "0", "why": "only names changed"} for one in others]
        conditions.ALIKE.write_text(yaml.safe_dump(known), encoding="utf-8")

    declare()
    return declare


@pytest.fixture
def make_run(this_machine: dict) -> Callable[..., Run]:
    """Fabricates finished runs (see `synthetic.finished_run`) in this test's results folder."""
    return synthetic.finished_run


@pytest.fixture(scope="session")
def _finished_once(captured: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(environment, "capture", lambda: captured)
        return synthetic.finished_run(results_root=str(tmp_path_factory.mktemp("finished"))).folder


@pytest.fixture
def finished_run(_finished_once: Path, this_machine: dict, tmp_path: Path) -> Run:
    """A finished synthetic run of two cells in this test's results folder, to be read or spoilt."""
    place = tmp_path / "results" / _finished_once.parent.name / _finished_once.name
    shutil.copytree(_finished_once, place)
    return Run(place)


# ------------------------------------------------------------------ other processes


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts Python code in a process of its own and waits for its first line; whatever is left is killed."""
    started: list[subprocess.Popen] = []

    def start(code: str, *arguments: object, root: Path | None = None) -> subprocess.Popen:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        env = os.environ | ({"DISTILBENCH_ROOT": str(root)} if root else {})
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        started.append(process)
        assert process.stdout.readline().strip() == "ready"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


# ------------------------------------------------------------------ full disks


class SmallDisk:
    """A folder on a disk that can be made full.

    A real one of 64 KiB where this process may mount; else the kernel's limit on the size of a file, which ends a
    write half-way too, with another error number.
    """

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted

    @contextlib.contextmanager
    def full(self, room: int = 0) -> Iterator[None]:
        """Makes it full while inside; where it is not mounted, files can still grow to `room` bytes."""
        if self.mounted:
            filler = self.folder / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"x" * 4096):
                    pass
            yield
            filler.unlink()
            return
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(params=["mounted", "limited"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that can be made full, of both kinds; where nothing can be mounted, the second kind does (CI: twice)."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = request.param == "mounted" and _mount(folder)
    if request.param == "mounted" and not mounted and not IN_CI:
        pytest.skip("nothing can be mounted here; the same is tried with a limit on the size of files")
    yield SmallDisk(folder, mounted)
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
