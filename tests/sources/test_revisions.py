"""The lock of what was fetched: written at the first time, enforced afterwards, whole at every moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distilbench import paths
from distilbench.errors import DataError, DistilbenchError, StorageError
from distilbench.sources import embedded, revisions
from distilbench.sources.revisions import HEADER, enforce, read

A, B = {"sha256": "a" * 64}, {"sha256": "b" * 64, "commit": "1234567"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The lock of this machine is in the cache: these tests have one of their own."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / "params" / "revisions.lock"


def test_a_new_artefact_is_written_down(lock):
    assert enforce("data x@main", A, lock) is True
    assert enforce("model y@main", B, lock) is True
    assert read(lock) == {"data x@main": A, "model y@main": B}
    assert lock.read_text().startswith(HEADER)


def test_a_known_artefact_is_compared_and_the_file_is_left_alone(lock):
    enforce("data x", A, lock)
    before = lock.stat().st_mtime_ns
    assert enforce("data x", A, lock) is False
    assert lock.stat().st_mtime_ns == before


def test_changed_content_is_refused_with_both_hashes_and_the_way_out(lock):
    enforce("data x", A, lock)
    with pytest.raises(DataError) as caught:
        enforce("data x", B, lock)
    message = str(caught.value)
    assert A["sha256"] in message
    assert B["sha256"] in message
    assert f"delete the entry 'data x' from {lock}" in message
    assert read(lock) == {"data x": A}


def test_the_way_out_works(lock):
    enforce("data x", A, lock)
    lock.write_text(HEADER)
    assert enforce("data x", B, lock) is True
    assert read(lock) == {"data x": B}


def test_entries_are_sorted_so_that_two_machines_write_the_same_file(lock, tmp_path):
    other = tmp_path / "other.lock"
    for key, content in (("b", B), ("a", A)):
        enforce(key, content, lock)
    for key, content in (("a", A), ("b", B)):
        enforce(key, content, other)
    assert lock.read_text() == other.read_text()


def test_awkward_names_survive(lock):
    key = "model a/b@main: 'quoted' #1 – ü " + "long " * 100
    enforce(key, A, lock)
    assert read(lock) == {key: A}


def test_an_absent_or_empty_lock_has_no_entries(lock, tmp_path):
    assert read(lock) == {}
    (tmp_path / "empty.lock").write_text(HEADER)
    assert read(tmp_path / "empty.lock") == {}


@pytest.mark.parametrize(
    "content",
    [b"a: [1,", b"- a\n- b\n", b"only words", b"\xff\xfe", b"a: b: c", b"data x: not a mapping", b"data x: {}"],
)
def test_a_damaged_lock_is_named_and_never_overwritten(lock, content):
    lock.parent.mkdir()
    lock.write_bytes(content)
    with pytest.raises(DistilbenchError, match=r"revisions\.lock is (not valid YAML|damaged)"):
        enforce("data x", A, lock)
    assert lock.read_bytes() == content


def test_the_committed_lock_can_be_read(monkeypatch):
    monkeypatch.delenv("DISTILBENCH_REVISIONS_LOCK")
    assert revisions.shared_lock() == paths.repo_root() / "params" / "revisions.lock"
    entries = read(revisions.shared_lock())
    assert all(len(entry["sha256"]) == 64 for entry in entries.values())
    assert revisions.shared_lock().read_text().startswith(HEADER)
    assert yaml.safe_load(revisions.shared_lock().read_text()) == (entries or None)


def test_the_lock_can_be_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_REVISIONS_LOCK", str(tmp_path / "my.lock"))
    assert revisions.shared_lock() == tmp_path / "my.lock"
    assert revisions.local_lock() == tmp_path / "cache" / "revisions.lock"


def test_a_full_disk_leaves_the_lock_whole(small_disk):
    lock = small_disk.folder / "revisions.lock"
    enforce("data x", A, lock)
    before = lock.read_bytes()
    with small_disk.full(room=100), pytest.raises(StorageError, match="cannot write"):
        enforce("model y", {"sha256": "c" * 5000}, lock)
    assert lock.read_bytes() == before
    assert {file.name for file in small_disk.folder.iterdir()} == {"revisions.lock"}


def test_processes_that_write_at_once_lose_nothing(lock):
    code = (
        "import sys; from pathlib import Path; from distilbench.sources.revisions import enforce\n"
        "for i in range(5): enforce(f'data {sys.argv[2]}-{i}', {'sha256': sys.argv[2]}, Path(sys.argv[1]))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(lock), str(i)]) for i in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert len(read(lock)) == 20


def test_a_run_on_embedded_texts_changes_no_committed_file():
    """Else its code would count as uncommitted, and neither it nor a later run could be published."""
    known = revisions.read(paths.repo_root() / "params" / "revisions.lock")
    every = {key for key in known if key.startswith("data embedded")}
    trained_on = {key for key in every if " sources " in key}  # by a training, which reads all three splits
    assert {key.rsplit(" ", 1)[1] for key in trained_on} == {"train", "validation", "test"}
    texts = every - trained_on
    assert len(texts) == len(embedded.TASKS)
    assert {f"rows of {key}" for key in texts} <= known.keys()
