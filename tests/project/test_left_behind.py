"""What stands around the tests: no process is left, however a session ends, and a wait ends when nothing moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import left_behind
import psutil
import pytest
import waiting
from cluster import Cluster, clear_away, missing
from conftest import IN_CI
from waiting import alive, wait_for

HOOKS = "from left_behind import pytest_configure, pytest_sessionfinish\n"
SLEEP = "sleep 98765"
#: Its parent ends at once and it has a session of its own, as a daemon has.
LEAVE = f"""
import os, subprocess
def test_leaves():
    subprocess.run(["sh", "-c", "setsid {SLEEP} >/dev/null 2>&1 & echo $! >>{{pids}}"], check=True)
"""
KEEP = f"""
import subprocess
def test_keeps():
    held.append(subprocess.Popen("{SLEEP}".split()))
    print(held[-1].pid, file=open("{{pids}}", "a"))
held = []
"""
NOTHING = """
import subprocess
def test_nothing():
    subprocess.run(["true"], check=True)
"""
INTERRUPT = """
import os, signal, time
def test_interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""
XDIST = ("-p", "xdist", "-n", "2")
FAIL = "def test_fails():\n    assert 0\n"


def session(folder: Path, *options: str, **tests: str) -> tuple[int, str, list[int]]:
    """A session of pytest with these tests: its exit status, what it printed, and who was left by it."""
    (folder / "conftest.py").write_text(HOOKS)
    pids = folder / "pids"
    for name, code in tests.items():
        (folder / f"test_{name}.py").write_text(code.replace("{pids}", str(pids)))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
    ]
    env = os.environ | {"PYTHONPATH": str(Path(left_behind.__file__).parent)}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # those of notebooks and browsers take most of a short session
    done = waiting.run([*command, *options, str(folder)], env=env)
    left = [int(line) for line in pids.read_text().split()] if pids.is_file() else []
    return done.returncode, done.stdout + done.stderr, left


def is_there(pid: int) -> bool:
    return psutil.pid_exists(pid) and alive(psutil.Process(pid))


@pytest.mark.parametrize("options", [(), XDIST], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    ("tests", "status"),
    [
        ({"leaves": LEAVE, "more": NOTHING}, 1),
        ({"keeps": KEEP}, 1),
        ({"leaves": LEAVE, "fails": FAIL}, 1),
        ({"leaves": LEAVE, "zinterrupt": INTERRUPT}, 2),
    ],
    ids=["a daemon", "a child", "after a failure", "when interrupted"],
)
def test_a_process_that_is_left_fails_the_session_by_name(tmp_path, options, tests, status):
    code, said, left = session(tmp_path, *options, **tests)
    assert len(left) == 1
    assert code == status, said
    assert f"1 processes were left behind by the tests:\n  {left[0]}: {SLEEP}" in said
    assert not is_there(left[0]), "and it is ended"


@pytest.mark.parametrize("options", [(), XDIST], ids=["alone", "xdist"])
def test_where_none_is_left_the_session_is_as_its_tests(tmp_path, options):
    assert session(tmp_path, *options, nothing=NOTHING)[0] == 0
    code, said, _ = session(tmp_path, *options, nothing=NOTHING, fails=FAIL)
    assert code == 1
    assert "left behind" not in said


def test_what_another_session_started_is_not_this_ones(tmp_path):
    """Also when this one was started by a test of that one."""
    stranger = subprocess.Popen(SLEEP.split())
    try:
        assert session(tmp_path, nothing=NOTHING)[0] == 0
        assert alive(psutil.Process(stranger.pid))
        assert stranger.pid in [process.pid for process in left_behind.processes()], "it is the outer one's"
    finally:
        stranger.kill()
        stranger.wait()


# ------------------------------------------------------------------ a cluster

BOOT = """
import os, sys
from pathlib import Path
from cluster import Cluster
made = Cluster(Path(sys.argv[1]), nodes=1)
made._network()
made.boot(made.names[0])
made._daemon("sleep", "98765")
print(made.tag, flush=True)
sys.stdin.readline()
"""


@pytest.mark.slurm
def test_a_cluster_dies_with_its_process_even_when_that_is_killed(tmp_path):
    if why := missing():
        assert not IN_CI, why
        pytest.skip(why)
    command = [sys.executable, "-c", BOOT, str(tmp_path / "c")]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    owner = subprocess.Popen(command, env=env, **pipes)
    try:
        tag = owner.stdout.readline().strip()
        below = psutil.Process(owner.pid).children
        wait_for(lambda: {"unshare", "bash", "sleep"} <= {p.name() for p in below(recursive=True)}, "a node is up")
        all_of_it = below(recursive=True)
        assert tag in spaces()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        wait_for(lambda: not any(map(alive, all_of_it)), f"the end of {all_of_it}")
        clear_away()
        assert tag not in spaces(), "what is no process is cleared away by the next one"
    finally:
        owner.kill()
        owner.communicate()
        clear_away()


def spaces() -> str:
    command = ["sh", "-c", "ip netns list; ip -o link"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_daemon_that_runs_is_not_started_again(tmp_path, monkeypatch):
    """Its first process would be forgotten, and nobody would end it."""
    cluster = Cluster.__new__(Cluster)
    cluster.root, cluster.env, cluster._running = tmp_path, dict(os.environ), {}
    cluster._daemon("sleep", "98765")
    try:
        with pytest.raises(AssertionError, match="sleep runs already"):
            cluster._daemon("sleep", "98765")
    finally:
        cluster._end("sleep")
    assert cluster._running == {}


# ------------------------------------------------------------------ waiting

WORKS = "import time\nwhile time.process_time() < 2.5: pass"


def test_what_works_is_waited_for_longer_than_patience_lasts(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_S", 0.1)
    monkeypatch.setattr(waiting, "WORK_S", 0.01)  # it gets less than a core where others work
    process = subprocess.Popen([sys.executable, "-c", WORKS])
    before = time.monotonic()
    wait_for(lambda: process.poll() is not None, patience_s=1.2)
    assert time.monotonic() - before > 2
    assert process.wait() == 0


def test_where_nothing_moves_the_wait_ends(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_S", 0.1)
    process = subprocess.Popen(SLEEP.split())
    try:
        with pytest.raises(pytest.fail.Exception, match=r"nothing moves any more \(for 0\.3 s\).*the sleeper ended"):
            wait_for(lambda: process.poll() is not None, "the sleeper ended", patience_s=0.3)
    finally:
        process.kill()
        process.wait()


def test_processes_that_go_on_are_not_gone():
    code = "while True: pass"
    busy, idle = subprocess.Popen([sys.executable, "-c", code]), subprocess.Popen(SLEEP.split())
    try:
        assert not waiting.all_gone([psutil.Process(busy.pid)], cpu_s=0.5)
        assert not waiting.all_gone([psutil.Process(idle.pid)], patience_s=0.5)
    finally:
        for process in (busy, idle):
            process.kill()
    assert waiting.all_gone([psutil.Process(busy.pid), psutil.Process(idle.pid)])
    assert [process.wait() for process in (busy, idle)] == [-signal.SIGKILL] * 2
