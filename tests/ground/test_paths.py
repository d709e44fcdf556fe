"""Files that are whole or absent, locks that die with their holder, and clear words about places and full disks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from conftest import IN_CI

from distilbench import paths
from distilbench.errors import DistilbenchError, RunError, StorageError

HOLD = """
import sys
from pathlib import Path
from distilbench import paths
with paths.hold_lock(Path(sys.argv[1]), "busy"):
    print("ready", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


# ------------------------------------------------------------------ places


def test_the_root_is_the_checkout_of_the_package():
    assert (paths.repo_root() / "distilbench" / "paths.py").is_file()


def test_the_root_can_be_given(tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "studies.yml").touch()
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    assert paths.repo_root() == tmp_path


def test_a_root_without_studies_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    with pytest.raises(DistilbenchError, match=r"no params/studies\.yml.*set DISTILBENCH_ROOT") as caught:
        paths.repo_root()
    assert str(tmp_path) in str(caught.value)


def test_results_go_where_given_else_where_the_variable_says_else_into_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_RESULTS", str(tmp_path / "variable"))
    assert paths.results_root(tmp_path / "given") == tmp_path / "given"
    assert paths.results_root() == tmp_path / "variable"
    monkeypatch.delenv("DISTILBENCH_RESULTS")
    assert paths.results_root() == paths.repo_root() / "results"


def test_a_name_that_is_not_utf8_is_refused_wherever_one_is_given(tmp_path, monkeypatch):
    bad = tmp_path / os.fsdecode(b"r\xe9s")
    (bad / "params").mkdir(parents=True)
    (bad / "params" / "studies.yml").touch()
    (tmp_path / "link").symlink_to(bad)
    refused = pytest.raises(StorageError, match=r"/r\\xe9s': this name is not UTF-8; rename the file or folder")
    for given in (bad, tmp_path / "link"):
        for taken in (paths.readable, paths.results_root, paths.find_input):
            with refused:
                taken(given.resolve() if taken is paths.readable else given)
    for variable, taken in (
        ("DISTILBENCH_RESULTS", paths.results_root),
        ("DISTILBENCH_CACHE", paths.cache_root),
        ("DISTILBENCH_ROOT", paths.repo_root),
    ):
        with monkeypatch.context() as patch, refused:
            patch.setenv(variable, str(bad))
            taken()
    assert paths.readable(str(tmp_path / "réŝ 日")) == tmp_path / "réŝ 日"


def test_results_root_is_absolute_and_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert paths.results_root("~/runs") == tmp_path / "runs"
    assert paths.results_root("runs") == tmp_path / "runs"


def test_the_cache_is_where_the_variables_say(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "own"))
    assert paths.cache_root() == tmp_path / "own"
    monkeypatch.delenv("DISTILBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_root() == tmp_path / "xdg" / "distilbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.cache_root() == tmp_path / ".cache" / "distilbench"


def test_an_input_is_looked_for_here_and_then_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.find_input("tests/data/tiny_reviews.tsv").is_relative_to(paths.repo_root())
    (tmp_path / "tests" / "data").mkdir(parents=True)
    (tmp_path / "tests" / "data" / "tiny_reviews.tsv").touch()
    assert paths.find_input("tests/data/tiny_reviews.tsv").is_relative_to(tmp_path)


def test_an_absent_input_is_named_with_both_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DistilbenchError, match=r"there is no 'absent\.tsv'") as caught:
        paths.find_input("absent.tsv")
    assert str(tmp_path) in str(caught.value)
    assert str(paths.repo_root()) in str(caught.value)


# ------------------------------------------------------------------ whole files


def test_write_atomic_makes_folders_and_replaces_the_content(tmp_path):
    file = tmp_path / "a" / "b" / "file.txt"
    paths.write_atomic(file, "first, and longer")
    paths.write_atomic(file, b"second \xff")
    assert file.read_bytes() == b"second \xff"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert names(file.parent) == {"file.txt"}


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_an_interrupt_before_the_replacement_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, at):
    file = tmp_path / "file.txt"
    paths.write_atomic(file, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, at, interrupt)
    with pytest.raises(KeyboardInterrupt):
        paths.write_atomic(file, "new")
    assert file.read_text() == "old"
    assert names(tmp_path) == {"file.txt"}


def test_no_reader_ever_sees_half_a_file(tmp_path):
    file, contents = tmp_path / "file.txt", {letter * 200_000 for letter in "ab"}
    paths.write_atomic(file, min(contents))
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for content in contents:
            paths.write_atomic(file, content)
    stop.set()
    reader.join()
    assert seen <= contents


def test_a_folder_appears_whole_in_the_place_of_an_earlier_one(tmp_path):
    folder, killed = tmp_path / "a" / "whole", tmp_path / "a" / ".whole.part"
    killed.mkdir(parents=True)
    (killed / "half").touch()
    for name in ("first", "second"):
        with paths.write_folder(folder) as part:
            (part / name).touch()
            assert names(part) == {name}, "what a killed process left is gone"
        assert names(folder) == {name}
    with pytest.raises(ValueError, match="no"), paths.write_folder(folder):
        raise ValueError("no")
    assert names(folder) == {"second"}


def test_json_is_sorted_indented_and_ends_with_a_newline(tmp_path):
    paths.write_json(tmp_path / "x.json", {"b": [1, None], "a": 0.1})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": 0.1,\n  "b": [\n    1,\n    null\n  ]\n}\n'
    assert paths.read_json(tmp_path / "x.json") == {"a": 0.1, "b": [1, None]}


def test_json_has_no_nan_and_the_old_file_stays(tmp_path):
    paths.write_json(tmp_path / "x.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        paths.write_json(tmp_path / "x.json", float("nan"))
    assert paths.read_json(tmp_path / "x.json") == 1


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"{'a': 1}"])
def test_damaged_json_is_named(tmp_path, content):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"x\.json is damaged: ."):
        paths.read_json(file)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(RunError, match=r"absent\.json is missing"):
        paths.read_json(tmp_path / "absent.json")


def test_appended_lines_are_whole(tmp_path):
    file = tmp_path / "lines"
    for line in ("one", "", "drei – ü", "x" * 100_000):
        paths.append_line(file, line)
    assert file.read_text().split("\n") == ["one", "", "drei – ü", "x" * 100_000, ""]


# ------------------------------------------------------------------ full and unwritable places


@pytest.mark.parametrize("size", [200, 5_000, 9_000, 100_000])
def test_a_full_disk_leaves_no_half_line(small_disk, size):
    """Sizes below and above a page and a buffer: part of the line fits, which must not stay."""
    file = small_disk.folder / "raw.jsonl"
    paths.append_line(file, "first")
    paths.append_line(small_disk.folder / "page", "x" * 4000)
    with small_disk.full(room=70):
        if small_disk.mounted:  # what is left of the file's last page is not enough
            file.write_bytes(b"first\n" + b"y" * 4000 + b"\n")
        before = file.read_bytes()
        with pytest.raises(StorageError, match=r"cannot write .*raw\.jsonl: (No space left on device|File too large)"):
            paths.append_line(file, "z" * size)
        assert file.read_bytes() == before
    paths.append_line(file, "after")
    assert file.read_bytes() == before + b"after\n"


def test_a_full_disk_leaves_the_old_file_whole_and_no_temporary(small_disk):
    file = small_disk.folder / "summary.json"
    paths.write_atomic(file, "old")
    before = names(small_disk.folder)
    with small_disk.full(room=1000):
        with pytest.raises(StorageError) as caught:
            paths.write_atomic(file, "n" * 9_000)
        assert file.read_text() == "old"
        assert names(small_disk.folder) - {"filler"} == before
    message = str(caught.value)
    assert str(file) in message
    assert "What was already there is untouched" in message
    assert "--results-root" in message
    paths.write_atomic(file, "new")
    assert file.read_text() == "new"


def test_a_lock_on_a_full_disk_is_a_clear_error(small_disk):
    lock = small_disk.folder / ".lock"
    lock.touch()
    refused = pytest.raises(StorageError, match=r"cannot write .*\.lock")
    with small_disk.full(room=0), refused, paths.hold_lock(lock, "busy"):
        pytest.fail("the lock cannot have been written")
    with paths.hold_lock(lock, "busy"):
        pass


def unwritable_places(tmp_path: Path) -> list[Path]:
    (tmp_path / "regular").touch()
    return [tmp_path / "regular" / "below", tmp_path / "regular" / "deep" / "below", Path("/proc/absent/file")]


def test_an_unwritable_place_is_a_clear_error(tmp_path):
    for place in unwritable_places(tmp_path):
        for write in (
            lambda place=place: paths.write_atomic(place / "x", "content"),
            lambda place=place: paths.append_line(place, "line"),
            lambda place=place: paths.hold_lock(place / "lock", "busy").__enter__(),
        ):
            with pytest.raises(StorageError, match=r"cannot write .*choose another place") as caught:
                write()
            assert str(place) in str(caught.value)


def test_a_folder_in_the_way_is_a_clear_error_and_stays(tmp_path):
    (tmp_path / "x.json" / "inside").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot write"):
        paths.write_atomic(tmp_path / "x.json", "content")
    assert names(tmp_path) == {"x.json"}
    assert (tmp_path / "x.json" / "inside").is_dir()


# ------------------------------------------------------------------ hashes


def test_hashes_are_sha256(tmp_path):
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    (tmp_path / "abc").write_bytes(b"abc")
    assert paths.sha256_bytes(b"abc") == known
    assert paths.sha256_bytes(b"a", b"", b"bc") == known
    assert paths.sha256_file(tmp_path / "abc") == known


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    one, other = {"a": 1, "b": {"c": "ü", "d": [1, 2]}}, {"b": {"d": [1, 2], "c": "ü"}, "a": 1}
    assert paths.canonical_json(one) == paths.canonical_json(other) == b'{"a":1,"b":{"c":"\\u00fc","d":[1,2]}}'
    assert paths.canonical_json([1, 2]) != paths.canonical_json([2, 1])


# ------------------------------------------------------------------ locks


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path, start_process):
    lock = tmp_path / "folder" / ".lock"
    holder = start_process(HOLD, lock)
    assert paths.is_locked(lock)
    refused = pytest.raises(RunError, match=rf"run 7 is busy \(held by process {holder.pid} on .+\)")
    with refused, paths.hold_lock(lock, "run 7 is busy"):
        pytest.fail("two processes hold the lock")
    assert paths.is_locked(lock), "asking must not take it away"


def test_the_lock_dies_with_its_process(tmp_path, start_process):
    lock = tmp_path / ".lock"
    holder = start_process(HOLD, lock)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not paths.is_locked(lock)
    with paths.hold_lock(lock, "busy"):
        assert lock.read_text().startswith(f"{os.getpid()} on ")


def test_the_lock_ends_with_the_block_also_after_an_error(tmp_path):
    lock = tmp_path / ".lock"
    assert not paths.is_locked(lock)
    with paths.hold_lock(lock, "busy"):
        assert paths.is_locked(lock)
    with contextlib.suppress(ZeroDivisionError), paths.hold_lock(lock, "busy"):
        raise ZeroDivisionError
    assert not paths.is_locked(lock)


def test_waiting_for_the_lock(tmp_path, start_process):
    lock = tmp_path / ".lock"
    holder = start_process(HOLD, lock)
    threading.Timer(0.4, holder.kill).start()
    with paths.hold_lock(lock, "busy", wait=True):
        assert holder.wait() == -signal.SIGKILL, "the other one must be gone first"


def test_the_shorter_name_of_the_next_holder_leaves_nothing_of_the_longer(tmp_path):
    lock = tmp_path / ".lock"
    lock.write_text("x" * 500)
    with paths.hold_lock(lock, "busy"):
        assert lock.read_text() == f"{os.getpid()} on {os.uname().nodename}"


def test_asking_writes_nothing(tmp_path):
    """So that a run can be shown from a folder that one may only read."""
    lock = tmp_path / ".lock"
    lock.touch(mode=0o444)
    before, opened = lock.stat().st_mtime_ns, []
    original = Path.open

    def remember(self, mode="r", *arguments, **named):
        opened.append(mode)
        return original(self, mode, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", remember)
        assert not paths.is_locked(lock)
    assert opened == ["rb"]
    assert lock.stat().st_mtime_ns == before


def test_two_who_ask_at_once_do_not_take_each_other_for_a_holder(tmp_path):
    lock = tmp_path / ".lock"
    lock.touch()
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # what another one who asks has for a moment
        assert not paths.is_locked(lock)


def test_one_who_asks_does_not_keep_a_start_from_the_lock(tmp_path):
    lock = tmp_path / ".lock"
    lock.touch()
    other = lock.open()
    fcntl.flock(other, fcntl.LOCK_SH)
    threading.Timer(0.06, other.close).start()
    with paths.hold_lock(lock, "busy"):
        assert other.closed


def test_a_notebook_shows_an_error_for_people_as_one_line():
    assert StorageError("no space")._render_traceback_() == ["StorageError: no space"]


def test_every_python_is_started_without_the_working_directory_on_its_path():
    """A user's `random.py` or `torch.py` lies there; paths.PYTHON is how to start one.

    A process that only begins anew keeps the path that it was started with.
    """
    for file in Path(paths.__file__).parent.rglob("*.py"):
        source = file.read_text(encoding="utf-8").replace('sys.executable, "-X", "utf8", *sys.orig_argv[1:]', "")
        assert not re.search(r"""sys\.executable\s*,\s*["']-(?!P)""", source), file
    code = "import sys; print('' in sys.path, sys.flags.safe_path)"
    done = subprocess.run([*paths.PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


# ------------------------------------------------------------------ what file systems refuse


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return os.strerror(request.param)


def test_a_place_without_locks_is_named_with_a_way_out_and_nothing_is_left(tmp_path, no_locks):
    for wait in (False, True):
        with pytest.raises(StorageError, match=rf"has no file locks \({no_locks}\)") as caught:
            paths.hold_lock(tmp_path / "results" / "run" / ".lock", "busy", wait).__enter__()
        assert str(tmp_path / "results" / "run") in str(caught.value)
        assert "--results-root or DISTILBENCH_RESULTS" in str(caught.value)
        assert names(tmp_path) == set()


def test_a_run_whose_name_is_too_long_leaves_no_folders(tmp_path):
    with pytest.raises(StorageError, match="give a shorter name"):
        paths.hold_lock(tmp_path / "results" / "study" / ("a" * 300) / ".lock", "busy").__enter__()
    assert names(tmp_path) == set()


def test_what_else_is_in_a_place_without_locks_stays(tmp_path, no_locks):
    (tmp_path / "data").touch()
    with pytest.raises(StorageError):
        paths.hold_lock(tmp_path / ".lock", "busy").__enter__()
    assert names(tmp_path) == {"data"}


def test_what_was_copied_to_a_place_without_locks_can_be_read(tmp_path, no_locks):
    (tmp_path / ".lock").touch()
    assert not paths.is_locked(tmp_path / ".lock")


def test_a_place_says_what_it_lacks(tmp_path, no_locks):
    assert paths.trouble_with(tmp_path / "not" / "made") == f"NO FILE LOCKS ({no_locks})"
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "choose another place"),
        (errno.ENAMETOOLONG, "give a shorter name"),
        (errno.ESTALE, "mount it anew"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_the_way_out_is_that_of_the_error(tmp_path, monkeypatch, number, way_out):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=rf"cannot write .*x: {os.strerror(number)}\. .*{way_out}"):
        paths.write_atomic(tmp_path / "x", "content")
    assert names(tmp_path) == set()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DISTILBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    for ask in (paths.home, paths.cache_root):
        with pytest.raises(StorageError, match=r"no home folder: HOME is not set.* Set HOME"):
            ask()
    with pytest.raises(StorageError, match="'~nobody-of-that-name/x' begins in a home folder"):
        paths.expand("~nobody-of-that-name/x")


@pytest.fixture
def readable_checkout():
    """A copy of what commands need of the checkout, where any user may read it."""
    folder = Path(tempfile.mkdtemp(prefix="distilbench-", dir="/tmp"))
    for name in ("distilbench", "params", "notebooks"):
        shutil.copytree(paths.repo_root() / name, folder / name)
    subprocess.run(["chmod", "--recursive", "a+rX", folder], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_for_another_user_nothing_is_a_traceback(tmp_path, readable_checkout):
    """A real user without rights, without HOME and without a passwd entry; then with a HOME of somebody else."""
    (tmp_path / "secret").mkdir(mode=0o700)
    left_out = ("HOME", "DISTILBENCH_CACHE", "DISTILBENCH_RESULTS", "XDG_CACHE_HOME")
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in left_out and not key.startswith("COV")  # this user cannot write what it covers
    }
    env |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(readable_checkout), "DISTILBENCH_ROOT": str(readable_checkout)}
    another = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *paths.PYTHON]

    def call(*words: object, **variables: str) -> subprocess.CompletedProcess:
        command = [*another, "-m", "distilbench.cli", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=env | variables, check=False, cwd="/")

    libraries = subprocess.run([*another, "-c", "import typer"], capture_output=True, text=True, env=env, check=False)
    if libraries.returncode and not IN_CI:
        pytest.skip(f"another user may not read this Python: {libraries.stderr.strip()}")
    said = call("show", "latest", "--results-root", tmp_path / "secret")
    assert said.returncode == 1
    assert said.stderr.startswith(f"error: cannot read {tmp_path}"), said.stderr
    assert "Permission denied" in said.stderr
    said = call("run", "distilbert", "--profile", "ci")
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)
    assert "user 54321 has no home folder" in said.stderr
    said = call("run", "distilbert", "--profile", "ci", HOME=str(tmp_path / "secret"))
    assert (said.returncode, said.stderr.count("\n")) == (1, 1), said.stderr
    assert f"HOME={tmp_path / 'secret'}: set HOME or DISTILBENCH_CACHE" in said.stderr
    assert "Permission denied" in said.stderr
    assert not (readable_checkout / "results").exists()
    said = call("doctor", "--json")
    assert said.returncode == 0, said.stderr
    assert "no home folder" in said.stdout
