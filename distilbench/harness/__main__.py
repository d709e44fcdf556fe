"""`python -m distilbench.harness MODULE FILE`: the `main` of a module, which is told by a file what to do.

Tied to its parent first: loading what a measurement needs takes seconds, in which a lone worker would go unnoticed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path


def tie_to_parent() -> None:
    """Asks the kernel to kill this process when its parent goes: a lone worker would disturb what is measured next."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        # the kernel says nothing of a parent that went before: then this process has another one already
        if os.environ.get("DISTILBENCH_PARENT", str(os.getppid())) != str(os.getppid()):
            sys.exit("the parent went before the request was made")


if __name__ == "__main__":
    tie_to_parent()
    sys.exit(importlib.import_module(sys.argv[1]).main(Path(sys.argv[-1])))
