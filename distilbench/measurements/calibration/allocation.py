"""The process of the allocation check: it takes a known amount of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from distilbench import paths
from distilbench.collectors.memory import Phases, rss_MiB


def main(job_file: Path) -> int:
    """Takes memory between two marks, as the memory pass does with a forward, and says what it saw."""
    job, phases = paths.read_json(job_file), Phases(torch.device("cpu"))
    phases.mark("load")
    before = rss_MiB()
    block = np.ones(job["MiB"] * 2**20, dtype=np.uint8)
    phases.mark("first")
    found = {"measured_MiB": phases.peaks_rss_MiB.get("first", phases.highest_rss_MiB) - before, "bytes": block.nbytes}
    paths.write_json(job_file.with_suffix(".result.json"), found)
    return 0
