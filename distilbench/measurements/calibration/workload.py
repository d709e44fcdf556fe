"""The workload of a calibration's pool: matrix products in numpy, in a process of its own, timed as a model is."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np

from distilbench import paths
from distilbench.collectors.latency import HostClock
from distilbench.collectors.telemetry import Telemetry
from distilbench.harness.loop import Loop, slowed

#: Of a repetition of the pool: about half a second, so that sixty of each fit into minutes.
PROTOCOL = {
    "warmup_cycles": 2, "warmup_seconds": 0.1, "warmup_max_seconds": 1.0, "min_cycles": 5, "min_iterations": 40,
    "min_seconds": 0.2, "half_width": 0.01, "max_seconds": 0.6,
}  # fmt: skip


def main(job_file: Path) -> int:
    """Times the workload, slowed as the job says, and writes the median beside the job."""
    job = paths.read_json(job_file)
    generator = np.random.default_rng(3)
    a, b = (generator.standard_normal((256, 256)) for _ in range(2))
    step = slowed(lambda: a @ b, job["slow_down"]) if job["slow_down"] else lambda: a @ b
    loop = Loop(PROTOCOL, [step] * 8, [1] * 8, HostClock(), Telemetry())
    warmup = loop.warm_up()
    loop.measure()
    timed = [row["latency_ms"] for row in loop.rows if not row["warmup"]]
    found = {"latency_ms": median(timed), "n_iterations": len(timed), "settled": warmup["settled"]}
    paths.write_json(job_file.with_suffix(".result.json"), found)
    return 0
