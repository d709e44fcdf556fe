"""`python -m distilbench.harness MODULE FILE`: the `main` of a module, which is told by a file what to do.

With `-` in the place of the file, for each file that a line of stdin names a process is forked (see `fork_server`).
Tied to its parent first: loading what a measurement needs takes seconds, in which a lone worker would go unnoticed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def tie_to_parent() -> None:
    """Asks the kernel to kill this process when its parent goes: a lone worker would disturb what is measured next."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        # the kernel says nothing of a parent that went before: then this process has another one already
        if os.environ.get("DISTILBENCH_PARENT", str(os.getppid())) != str(os.getppid()):
            sys.exit("the parent went before the request was made")


def file_of(word: str, preload: Callable[[], None] = lambda: None) -> Path:
    """The file to work on; for `-` one for each fork of this process, in which this returns.

    Args:
        preload: imports what else will be needed, before there are forks.
    """
    if word != "-":
        return Path(word)
    from distilbench.harness import fork_server  # here: a fresh process does without

    preload()
    file = fork_server.fork_for_each_line()
    tie_to_parent()  # a tie is not inherited
    return file


if __name__ == "__main__":
    tie_to_parent()
    module = importlib.import_module(sys.argv[1])
    sys.exit(module.main(file_of(sys.argv[-1], getattr(module, "preload", lambda: None))))
