"""Claims, and runs that nobody measured, whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import synthetic

from distilbench.measurements.sweep.measure import design
from distilbench.publication.claims.model import Claim
from distilbench.runs.folder import Run

BatchMs = Callable[[Any, int], float]
FASTER: dict[str, Any] = {
    "id": "four-against-two",
    "claim": "Batches of 4 are 39 % faster per sentence than batches of 2.",
    "source": "requirement document 001",
    "study": "distilbert",
    "hardware": {"device": "cpu"},
    "parameters": {"batch_sizes": [2, 4]},
    "test": {
        "rule": "ratio",
        "of": {"number": "throughput_samples_per_s", "where": {"batch_size": 4}},
        "to": {"number": "throughput_samples_per_s", "where": {"batch_size": 2}},
        "expected": {"about": 1.39, "within": 0.05},
    },
}


def claim_of(**changed: Any) -> Claim:
    """The claim that batches of 4 are 39 % faster, with other fields."""
    return Claim.model_validate(FASTER | changed)


def timed_run(batch_ms: BatchMs, proof: Callable[[Any, int], dict] = lambda *_: {}, **given: Any) -> Run:
    """A finished run whose batches take as long as a function of cell and repetition says, in ms."""
    small = {"passes": ["timing"], "repetitions": 10, "batch_sizes": [2, 4], "length_policies": ["fixed-32"]} | given
    run = synthetic.started_run(**small)
    for cell, _, number in design.plan(synthetic.resolved(**small)):
        rows = [row | {"latency_ms": batch_ms(cell, number)} for row in synthetic.iterations(cell.batch_size)]
        predicted = synthetic.predictions(cell.cell)
        record = synthetic.timing(run, cell, number, rows, predicted)
        synthetic.commit(run, record.model_copy(update={"proof": proof(cell, number)}), None if number else predicted)
    return synthetic.summarised(run)


def per_sentence(factor: float, noise: Callable[[int], float] = lambda _: 1.0) -> BatchMs:
    """Batches of 4 that are `factor` times as fast per sentence as all others; slow rounds are slow for every cell."""

    def batch_ms(cell: Any, number: int) -> float:
        ms = 5.0 * cell.batch_size * (1 + 0.02 * number)
        return ms / factor * noise(number) if cell.batch_size == 4 else ms

    return batch_ms
