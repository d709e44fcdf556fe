"""Control groups: counters of both versions read from a tree of files; a real one is met in test_sweep."""

from __future__ import annotations

import pytest

from distilbench import cgroups


@pytest.fixture
def member_of(tmp_path, monkeypatch):
    """Makes this process a member of the groups in the text."""

    def make(text: str) -> None:
        (tmp_path / "cgroup").write_text(text)
        monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "cgroup")

    return make


def put(root, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


EVENTS = "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n"


def test_version_2(tmp_path, member_of):
    member_of("0::/slurm/job_7/step_0\n")
    put(tmp_path, "slurm/job_7/step_0/memory.events", EVENTS)
    assert cgroups.oom_kills(tmp_path) == 3


def test_version_1_and_both_at_once(tmp_path, member_of):
    member_of("12:cpu,cpuacct:/\n4:memory:/slurm/uid_0/job_7\n0::/\n")
    put(tmp_path, "memory/slurm/uid_0/job_7/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert cgroups.oom_kills(tmp_path) == 5
    member_of("4:pids:/\n0::/user\n")
    put(tmp_path, "unified/user/memory.events", EVENTS)
    assert cgroups.oom_kills(tmp_path) == 3


@pytest.mark.parametrize("text", ["", "0::/gone\n", "nonsense\n", "4:memory:/old\n"])
def test_where_nothing_counts_them_nothing_is_said(tmp_path, member_of, text):
    member_of(text)
    put(tmp_path, "memory/old/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")  # before Linux 4.13
    assert cgroups.oom_kills(tmp_path) is None


def test_without_membership(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "nothing")
    assert cgroups.oom_kills(tmp_path) is None
