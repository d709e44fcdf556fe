"""`python -m distilbench.bench JOB.json`: one repetition (see `worker`); `... ceilings JOB.json`: see `roofline`;
`... threads JOB.json`: see `collectors.threads`; `... busy JOB.json` and `... allocate JOB.json`: see `busywork` and
`calibrate`.

Tied to its parent first: loading what a measurement needs takes seconds, in which a lone worker would go unnoticed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path


def tie_to_parent() -> None:
    """Asks the kernel to kill this process when its parent goes: a lone worker would disturb what is measured next."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.environ.get("DISTILBENCH_PARENT", str(os.getppid())) != str(os.getppid()):
            sys.exit("the parent went before the request was made")


if __name__ == "__main__":
    tie_to_parent()
    if sys.argv[1] == "ceilings":
        from distilbench.bench.roofline import main as task
    elif sys.argv[1] == "threads":
        from distilbench.collectors.threads import main as task
    elif sys.argv[1] == "busy":
        from distilbench.bench.busywork import main as task
    elif sys.argv[1] == "allocate":
        from distilbench.bench.calibrate import allocate as task
    else:
        from distilbench.bench.worker import main as task
    sys.exit(task(Path(sys.argv[-1])))
