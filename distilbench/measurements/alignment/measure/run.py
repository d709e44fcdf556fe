"""How dimension alignment is measured: nothing is prepared; what a worker is told. No torch."""

from __future__ import annotations

from typing import Any

from distilbench import paths
from distilbench.harness import processes
from distilbench.measurements.alignment.params import AlignmentParams
from distilbench.runs.folder import Run

PROTOCOL = ("dtype", "dimensions", "tokens", "hidden", "width", "heads", "warmup", "measured", "seed", "heap")

take = processes.taking(
    "distilbench.measurements.alignment.measure.worker",
    lambda params, _: {name: getattr(params, name) for name in PROTOCOL},
    lambda params: {"device": params.device},
)


def prepare(params: AlignmentParams, run: Run) -> dict[str, Any]:
    """What is measured on, in data.json: neither a text nor a model, but random numbers of these sizes."""
    sizes = {"tokens": params.tokens, "hidden": params.hidden, "width": params.width, "heads": params.heads}
    name = (
        f"products of {params.tokens:,} rows with {params.hidden:,} and {params.width:,} columns, attention of "
        f"{params.heads} heads over {params.tokens:,} tokens; random numbers"
    )
    sha256 = paths.sha256_bytes(paths.canonical_json(sizes | {"seed": params.seed}))
    data = {"schema_version": 1, "name": name, "source": "random", "sha256": sha256}
    run.record_once("data.json", data | sizes, ("sha256",))
    return load(run)


def is_prepared(run: Run) -> bool:
    """Whether the sizes are on record."""
    return (run.folder / "data.json").is_file()


def load(run: Run) -> dict[str, Any]:
    """What `prepare` gives."""
    return {"folder": str(run.folder)}
