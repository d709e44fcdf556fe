"""Processes that are forked from one that has imported what they need, so that imports are paid for once.

Forks share the memory layout of the process that they come from, which fresh processes sample: this is for steps of
which no interval is claimed. Both sides stand here: `ForkServer` is that of the run, the other one that of the process.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

READY = "ready"
REPLY = re.compile(rb"\0(.*)\n")  # on stderr, which the forks share; what they say there holds no NUL


class ForkServer:
    """The process that forks, one step at a time.

    It is killed whenever a step does not end by itself, and the kernel kills the fork with it (see `__main__`).
    """

    def __init__(self, command: tuple[str, ...], variables: dict[str, str]) -> None:
        self.started_as, self._heard = (command, variables), b""
        self.process = subprocess.Popen(
            (*command, "-"),
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables, bufsize=0,
        )  # fmt: skip

    def ready(self, timeout_s: float) -> bool:
        """Waits until it can fork; False where it ended instead, or takes too long."""
        return self.process.returncode is None and self._hear(timeout_s)[0] == READY

    def run(self, job_file: Path, timeout_s: float) -> tuple[int | None, str, float]:
        """Forks a process that works on a file: (exit code, or None after the timeout; its stderr; CPU seconds)."""
        with suppress(BrokenPipeError):  # killed meanwhile: that is heard next
            self.process.stdin.write(os.fsencode(f"{job_file}\n"))
        reply, said = self._hear(timeout_s)
        if reply is None:
            return None, "", 0.0
        code, cpu_s = reply.split() if reply else (self.process.returncode, 0.0)
        return int(code), said, float(cpu_s)

    def _hear(self, timeout_s: float) -> tuple[str | None, str]:
        """Sleeps until the next reply: (the reply; "" where it ended, None after the timeout), and what came before."""
        deadline, pipe, replied = time.monotonic() + timeout_s, select.poll(), None
        pipe.register(self.process.stderr)
        try:
            while not (replied := REPLY.search(self._heard)):
                if not pipe.poll(max(0.0, 1e3 * (deadline - time.monotonic()))):
                    return None, ""
                if not (more := os.read(self.process.stderr.fileno(), 1 << 16)):
                    return "", self._heard.decode(errors="replace")
                self._heard += more
        finally:
            if not replied:
                self.end()
        before, self._heard = self._heard[: replied.start()], self._heard[replied.end() :]
        return replied[1].decode(), before.decode(errors="replace")

    def end(self) -> None:
        """Ends it and its fork, and waits for both: the fork holds the pipe open until it is gone."""
        self.process.kill()
        self.process.communicate()


_server: ForkServer | None = None


def ready(command: tuple[str, ...], variables: dict[str, str], timeout_s: float) -> ForkServer | None:
    """A server for a worker's command and environment that can fork now; None: a fresh process must do.

    One that ended by itself is not started again: its libraries cannot be imported, or start threads.
    """
    global _server
    if not _server or _server.started_as != (command, variables) or (_server.process.poll() or 0) < 0:
        end()
        _server = ForkServer(command, variables)
    return _server if _server.ready(timeout_s) else None


def end() -> None:
    """Ends the server and its fork, if there is one."""
    if _server:
        _server.end()


# ------------------------------------------------------------------ the other side


def fork_for_each_line() -> Path:
    """Forks a process for each line of stdin, one after the other; returns in each of them the file that it names.

    Says `ready` before it reads a line, and when a fork ended its exit code and the CPU seconds that it took.
    """
    # OpenBLAS starts threads when NumPy is imported, and ends them before a fork (pthread_atfork(3)): one that does
    # nothing, before they are counted
    if (first := os.fork()) == 0:
        os._exit(0)
    os.waitpid(first, 0)
    while _is_alone():
        _reply(READY)
        if not (line := sys.stdin.buffer.readline()):
            sys.exit()
        own, before_s = os.getpid(), sum(os.times()[:4])
        if (fork := os.fork()) == 0:
            os.environ["DISTILBENCH_PARENT"] = str(own)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            return Path(os.fsdecode(line.removesuffix(b"\n")))
        _, status = os.waitpid(fork, 0)
        _reply(f"{os.waitstatus_to_exitcode(status)} {sum(os.times()[:4]) - before_s}")
    sys.exit("a library started threads when it was imported")


def _is_alone() -> bool:
    """Whether no other thread runs here: one would not be in a fork, and a lock that it holds would stay locked there.

    jemalloc's, which PyArrow brings, does no harm: its locks are taken before a fork and released after it.
    """
    names = [(task / "comm").read_text(encoding="utf-8").strip() for task in Path("/proc/self/task").iterdir()]
    return len(names) - names.count("jemalloc_bg_thd") == 1


def _reply(text: str) -> None:
    os.write(2, f"\0{text}\n".encode())
