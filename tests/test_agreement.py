"""The isolated measurement against a plain loop: what one would time by hand, in one process, must come out."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from measuring import made_up_inputs, small_design

from distilbench import neighbours
from distilbench.batches import make_batches
from distilbench.bench import design, sweep
from distilbench.bench.sweep import Prepared
from distilbench.models import arguments, load_model
from distilbench.stats import t_interval

LENGTH, BATCH, PAIRS, VOCABULARY = 128, 8, 10, 200
GIVEN = {
    "model_size": "base", "batch_sizes": [BATCH], "length_policies": [f"fixed-{LENGTH}"], "samples_per_cycle": 64,
    "passes": ["timing"], "min_cycles": 1, "min_seconds": 2.0, "max_seconds": 2.0, "warmup_cycles": 2,
}  # fmt: skip


class Plain:
    """The loop that anybody would write: one process, one model, the same batches, a clock around each forward."""

    def __init__(self, resolved, inputs: Path) -> None:
        import torch

        from distilbench.batches import load_inputs

        token_ids, _, _ = load_inputs(inputs)
        batches = make_batches(token_ids, BATCH, f"fixed-{LENGTH}", 64, resolved.params.seed)
        self.pairs = [(torch.from_numpy(b.input_ids), torch.from_numpy(b.attention_mask)) for b in batches]
        self.loaded = load_model(**arguments(resolved.params, VOCABULARY))

    def median_ms(self) -> float:
        for pair in self.pairs * 2:  # as long a warm-up as the isolated one, after as long a rest
            self.loaded.forward(*pair)
        times = []
        for pair in self.pairs * 2:
            start = time.perf_counter()
            self.loaded.forward(*pair)
            times.append((time.perf_counter() - start) * 1e3)
        return median(times)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_isolated_and_plain_agree(tmp_path):
    """Ten ABBA pairs: the 95 % interval of the ratio lies within 0.97 and 1.03; on a busy machine it is undecided."""
    resolved = small_design(tmp_path, **GIVEN, repetitions=2 * PAIRS)
    run = design.start(resolved)
    inputs = made_up_inputs(run.folder / "work" / "inputs.npz", sentences=64)
    prepared = Prepared(inputs, {"name": "made up", "rows": 64}, {"name": "random"}, ["a", "b"], VOCABULARY)
    plain, (cell,) = Plain(resolved, inputs), design.cells_of(resolved.params)
    attempts = []
    for attempt in range(3):
        before = neighbours.look()
        ratios, number = [], 0
        for _ in range(PAIRS):
            isolated, by_hand = [], []
            for kind in "ABBA":
                if kind == "B":
                    by_hand.append(plain.median_ms())
                    continue
                job = sweep._job(run, resolved, prepared, cell, "timing", number, attempt + 1)
                isolated.append(sweep._run_worker(run, job, 600).latency_ms)
                number += 1
            ratios.append(np.log(np.mean(isolated) / np.mean(by_hand)))
        low, high = np.exp(t_interval(ratios))
        busy = neighbours.between(before, neighbours.look())["foreign_cores"] or 0.0
        attempts.append(f"{np.exp(np.mean(ratios)):.4f} ({low:.4f} to {high:.4f}), foreign load {busy:.2f} cores")
        print(attempts[-1])
        if busy <= 0.2:
            assert 0.97 <= low <= high <= 1.03, attempts
            return
    pytest.skip(f"undecided, the machine was busy: {attempts}")
