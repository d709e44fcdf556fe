"""The isolated measurement against a plain loop: what one would time by hand, in one process, must come out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from measuring import made_up_inputs, small_design

from distilbench import studies
from distilbench.collectors import cpu_use
from distilbench.harness.processes import KEPT_HEAP
from distilbench.measurements.sweep.measure import design
from distilbench.measurements.sweep.measure.run import Prepared, take
from distilbench.stats import t_interval

LENGTH, BATCH, VOCABULARY = 128, 8, 200
PAIRS, MOST_PAIRS, HALF_WIDTH = 10, 48, 0.015  # pairs until the ratio is known to 1.5 %, whatever it is
GIVEN = {
    "model_size": "base", "batch_sizes": [BATCH], "length_policies": [f"fixed-{LENGTH}"], "samples_per_cycle": 64,
    "passes": ["timing"], "warmup_cycles": 1, "min_cycles": 1, "min_iterations": 8, "min_seconds": 2.0,
    "max_seconds": 2.0, "heap": "keep", "num_threads": 1,
}  # fmt: skip


def plain_ms(job_file: Path) -> float:
    """The median of the plain loop in a process of its own: where its memory happens to lie is drawn anew, too.

    Both sides keep their freed memory: a heap that gives it back costs each process another amount (up to a tenth of
    a forward, by luck), and it is the measuring that is compared here.
    """
    command = [sys.executable, str(Path(__file__).parents[1] / "plain_loop.py"), str(job_file)]
    done = subprocess.run(command, env=os.environ | KEPT_HEAP, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def half_width(logs: list[float]) -> float:
    """Half of the 95 % interval of log ratios."""
    low, high = t_interval(logs)
    return (high - low) / 2


@pytest.mark.slow
@pytest.mark.timeout(5 * 3600)  # three attempts
def test_isolated_and_plain_agree(tmp_path):
    """ABBA pairs: the 95 % interval of the ratio lies within 0.97 and 1.03; on a busy machine it is undecided.

    With one thread: two run at two speeds on a virtual machine, by luck of each process (see the calibration), and
    a few dozen pairs would not tell that luck from a bias. Short turns, and as many as the width of the interval asks
    for, not its place: what else its host does makes such a machine slower for seconds, and no counter here shows it.
    """
    resolved = small_design(tmp_path, **GIVEN, repetitions=2 * MOST_PAIRS)
    run, (cell,) = studies.start(resolved), design.cells_of(resolved.params)
    inputs = made_up_inputs(run.folder / "work" / "inputs.npz", sentences=64)
    prepared = Prepared(
        inputs, {"name": "made up", "rows": 64}, {"name": "random"}, ["a", "b"], {"vocab_size": VOCABULARY}
    )
    work = {"batch": BATCH, "policy": f"fixed-{LENGTH}", "samples": 64, "seed": resolved.params.seed}
    work |= {"threads": resolved.params.num_threads}
    work |= {"inputs": str(inputs), "model": resolved.params.model_arguments(vocab_size=VOCABULARY)}
    job_file, attempts, measure = tmp_path / "plain.json", [], take(run, resolved, prepared)
    job_file.write_text(json.dumps(work))
    for attempt in range(3):
        before = cpu_use.cpu_counters()
        ratios, number = [], 0
        while len(ratios) < PAIRS or (len(ratios) < MOST_PAIRS and half_width(ratios) > HALF_WIDTH):
            isolated, by_hand = [], []
            for kind in "ABBA":
                if kind == "B":
                    by_hand.append(plain_ms(job_file))
                    continue
                record = measure(cell, "timing", number, attempt + 1)
                run.commit(record)
                isolated.append(record.latency_ms)
                number += 1
            ratios.append(np.log(np.mean(isolated) / np.mean(by_hand)))
            print(f"isolated {isolated} ms, plain {by_hand} ms", flush=True)
        low, high = np.exp(t_interval(ratios))
        busy = cpu_use.cpu_use_between(before, cpu_use.cpu_counters())["foreign_cores"] or 0.0
        attempts.append(f"{np.exp(np.mean(ratios)):.4f} ({low:.4f} to {high:.4f}), foreign load {busy:.2f} cores")
        print(attempts[-1])
        if busy <= 0.2:
            assert 0.97 <= low <= high <= 1.03, attempts
            return
    pytest.skip(f"undecided, the machine was busy: {attempts}")
