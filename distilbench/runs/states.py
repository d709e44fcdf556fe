"""The states of runs and of their cells."""

from __future__ import annotations

from typing import Literal

RunState = Literal["pending", "running", "ok", "failed", "cancelled", "preempted"]
CellState = Literal[
    "pending", "running", "ok", "unstable", "invalid", "unavailable", "skipped", "oom", "timeout", "failed",
    "cancelled", "preempted",
]  # fmt: skip
MEASURED = ("ok", "unstable")  # what has numbers
FINAL = {*MEASURED, "oom", "unavailable", "skipped"}  # what a resumed run does not do again
