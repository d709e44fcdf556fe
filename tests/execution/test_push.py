"""Runs copied elsewhere by a real rsync, also over a real ssh; a daemon is in test_cluster.py."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import SBIN, free_ports
from conftest import IN_CI
from waiting import wait_for

from distilbench.errors import DistilbenchError, ParameterError, StorageError
from distilbench.execution import push


@pytest.fixture(autouse=True)
def rsync(monkeypatch):
    if not shutil.which("rsync"):
        assert not IN_CI, "no rsync in CI"
        pytest.skip("rsync is not installed (scripts/system_packages.sh)")
    monkeypatch.setattr(push, "WAIT_S", 0.0)
    monkeypatch.delenv("RESULTS_DEST", raising=False)


def files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_is_copied_whole_and_stays_here(finished_run, tmp_path, monkeypatch):
    (finished_run.folder / "work").mkdir()
    (finished_run.folder / "work" / "scratch").write_text("x")
    before = files(finished_run.folder)
    monkeypatch.setenv("RESULTS_DEST", str(tmp_path / "archive"))
    count, place = push.push(finished_run)
    copied = files(tmp_path / "archive" / "distilbert" / finished_run.run_id)
    assert place.endswith(f"archive/distilbert/{finished_run.run_id}")
    assert files(finished_run.folder) == before
    assert {file.name for file in before.keys() - copied.keys()} - {".lock"} == {"scratch"}
    assert all(before[file] == content for file, content in copied.items())
    assert count == len(copied)


def test_again_only_what_is_new_goes(finished_run, tmp_path):
    push.push(finished_run, str(tmp_path / "archive"))
    copied = tmp_path / "archive" / "distilbert" / finished_run.run_id
    extra = copied / "somebody's notes"
    extra.write_text("stay")
    (finished_run.folder / "run_summary.md").write_text("new")
    push.push(finished_run, str(tmp_path / "archive"))
    assert (copied / "run_summary.md").read_text() == "new"
    assert extra.read_text() == "stay", "nothing is deleted there"


def test_a_file_that_differs_there_is_found(finished_run, tmp_path, monkeypatch):
    """As a disk that flips a bit would have it: same size, same time, other content."""
    archive = tmp_path / "archive"
    push.push(finished_run, str(archive))
    there = archive / "distilbert" / finished_run.run_id / "raw.jsonl"
    here = finished_run.raw
    there.write_bytes(bytes([there.read_bytes()[0] ^ 1]) + there.read_bytes()[1:])
    os.utime(there, ns=(here.stat().st_atime_ns, here.stat().st_mtime_ns))
    with pytest.raises(StorageError, match=r"1 files in .* are not those of run .*raw\.jsonl"):
        push.push(finished_run, str(archive))


def test_a_place_that_cannot_be_reached(finished_run):
    with pytest.raises(StorageError, match=r"could not be copied to rsync://127\.0\.0\.1:1/no.*, tried 2 times"):
        push.push(finished_run, "rsync://127.0.0.1:1/no", tries=2)


@pytest.mark.parametrize(("code", "times"), [(1, 1), (12, 3)])
def test_what_no_second_try_can_help_is_tried_once(finished_run, tmp_path, monkeypatch, code, times):
    (tmp_path / "rsync").write_text(f"#!/bin/sh\necho broken >&2\nexit {code}\n")
    (tmp_path / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StorageError, match=f"tried {times} times: broken"):
        push.push(finished_run, str(tmp_path / "there"))


def test_banners_of_a_place_are_no_files_and_hide_no_reason(finished_run, tmp_path, monkeypatch):
    """A daemon's motd stands among what rsync lists, a host's before what it complains of."""
    rsync = tmp_path / "rsync"
    rsync.write_text("#!/bin/sh\necho '<file archive of the site: welcome>'\necho '<f.st...... raw.jsonl extra'\n")
    rsync.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StorageError, match=r"^1 files in .*: raw\.jsonl extra$"):
        push.push(finished_run, str(tmp_path / "there"))
    rsync.write_text("#!/bin/sh\nprintf 'Welcome\\nto the\\nsite\\nrsync: no space\\n' >&2\nexit 1\n")
    with pytest.raises(StorageError, match="rsync: no space"):
        push.push(finished_run, str(tmp_path / "there"))


def test_a_place_that_cannot_be_compared(finished_run):
    with pytest.raises(StorageError, match="could not be compared"):
        push._different(finished_run, "rsync://127.0.0.1:1/no")


def test_no_place_named(finished_run):
    with pytest.raises(ParameterError, match="no destination: give --to"):
        push.push(finished_run)


def test_no_rsync(finished_run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DistilbenchError, match="rsync is not on the PATH"):
        push.push(finished_run, "/somewhere")


@pytest.fixture
def host(tmp_path, monkeypatch) -> Iterator[Path]:
    """127.0.0.1 with an sshd of its own, and this user's key to it."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:{SBIN}")
    if not sshd:
        assert not IN_CI, "no sshd in CI"
        pytest.skip("sshd is not installed (scripts/system_packages.sh)")
    if not os.geteuid():
        Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up root's rights
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (port,) = free_ports(1)
    options = [
        f"HostKey={tmp_path}/host", f"AuthorizedKeysFile={tmp_path}/user.pub", f"Port={port}", "StrictModes=no",
        "ListenAddress=127.0.0.1", "UsePAM=no", f"PidFile={tmp_path}/sshd.pid",
    ]  # fmt: skip
    words = [word for option in options for word in ("-o", option)]
    process = subprocess.Popen([sshd, "-D", "-f", "/dev/null", *words], stderr=subprocess.PIPE, text=True)
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}")
    ssh = f"ssh -p {port} -i {tmp_path}/user -o UserKnownHostsFile={tmp_path}/known -o BatchMode=yes -F /dev/null"
    monkeypatch.setenv("RSYNC_RSH", ssh)
    try:
        wait_for(lambda: subprocess.run([*ssh.split(), "127.0.0.1", "true"], check=False).returncode == 0, "sshd")
        yield tmp_path / "there"
    finally:
        process.terminate()
        process.communicate()


def test_a_run_goes_to_a_host_over_ssh(finished_run, host):
    count, place = push.push(finished_run, f"127.0.0.1:{host}")
    copied = files(host / "distilbert" / finished_run.run_id)
    assert place == f"127.0.0.1:{host}/distilbert/{finished_run.run_id}"
    assert len(copied) == count > 5
    assert copied[Path("raw.jsonl")] == finished_run.raw.read_bytes()
    spoilt = host / "distilbert" / finished_run.run_id / "raw.jsonl"
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"x")
    os.utime(spoilt, ns=(finished_run.raw.stat().st_atime_ns, finished_run.raw.stat().st_mtime_ns))
    with pytest.raises(StorageError, match=r"1 files in .* are not those of run"):
        push.push(finished_run, f"127.0.0.1:{host}")
