"""No test may leave a process: looked at when pytest ends, also under xdist and after Ctrl-C.

A session marks its environment, which all that it starts inherits: a process with the mark belongs to it even when its
parent is gone. Hooks for a conftest.py.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import psutil
import pytest
from waiting import alive, all_gone

MARK = "DISTILBENCH_TEST_SESSION"
#: Part of this process, and ended with it.
OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def pytest_configure(config: pytest.Config) -> None:
    """Marks the session; one in a test of another session is within that one's mark."""
    if not hasattr(config, "workerinput"):  # a worker of xdist has inherited it
        os.environ[MARK] = "/".join([*filter(None, [os.environ.get(MARK)]), secrets.token_hex(8)])


@pytest.hookimpl(trylast=True)  # after fixtures of the session and xdist's workers have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the session for what is left, names it, and ends it."""
    if hasattr(session.config, "workerinput"):
        return
    left = processes()
    if not left or all_gone(left, cpu_s=10.0, patience_s=5.0):  # some are just about to end
        return
    left = [process for process in processes() if alive(process)]
    told = [f"  {process.pid}: {_command(process)}" for process in left]
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line(f"\n{len(left)} processes were left behind by the tests:", red=True)
    for line in told:
        reporter.write_line(line, red=True)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def processes() -> list[psutil.Process]:
    """The living processes of this session, but for the one that asks."""
    below = psutil.Process().children(recursive=True)
    marked = [process for process in psutil.process_iter() if _is_marked(process.pid)]
    found = {process.pid: process for process in [*below, *marked] if process.pid != os.getpid()}
    return [one for one in found.values() if alive(one) and not any(name in _command(one) for name in OWN)]


def _is_marked(pid: int) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or somebody else's
        return False
    mine = f"{MARK}={os.environ[MARK]}".encode()
    return any(variable == mine or variable.startswith(mine + b"/") for variable in variables)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return "(gone meanwhile)"
