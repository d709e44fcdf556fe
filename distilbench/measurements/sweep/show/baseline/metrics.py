"""The metrics of a baseline: what was measured per batch size, of the model, and by the sections of the run."""

from __future__ import annotations

from typing import Any

from distilbench.measurements.sweep.summary import join
from distilbench.report import load, spread
from distilbench.runs.folder import Run
from distilbench.runs.parameters import PROFILES

SCHEMA_VERSION = 1
MiB = 2**20


def metrics(run: Run) -> dict[str, Any]:
    """baseline_metrics.json of a finished run. Units end the names; what was not measured is null, with its reason.

    A pair `<name>_low`, `<name>_high` is what `spread` says of a number: the interval of a median over independent
    processes, or the range where there are too few of them.
    """
    config, env, profile = run.config, run.env, run.config["parameters"]["profile"]
    measured = [cell for cell in run.kind.showing.rows(run) if cell["throughput_samples_per_s"] is not None]
    best = join.best(measured)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "study": config["study"],
        "measured": config["created"],
        "profile": f"{profile}: {PROFILES[profile]}",
        "machine": load.label(run),
        "device": config["parameters"]["device"],
        "software": {name: env["packages"][name] for name in ("distilbench", "torch", "transformers")},
        "model": _model(run.model),
        "text": {name: run.data[name] for name in ("name", "source", "rows")},
        "best_batch_size": best and best["batch_size"],
        "batch_sizes": [_of_cell(cell) for cell in measured],
        "sections": {one.kind.name: one.kind.showing.numbers(one) for one in run.sections},
    }


def _model(model: dict[str, Any]) -> dict[str, Any]:
    disk = model.get("disk_bytes")
    return {
        "name": model["name"],
        "source": model["source"],
        "parameters_M": model["parameters"] / 1e6,
        "size_on_disk_MiB": None if disk is None else disk / MiB,
        "size_on_disk_MiB_reason": "random weights are in no file" if disk is None else None,
        "size_in_memory_MiB": model["memory_bytes"] / MiB if "memory_bytes" in model else None,
    }


def _of_cell(cell: dict[str, Any]) -> dict[str, Any]:
    on_gpu = cell["device"].startswith("cuda")
    return {
        **{name: cell[name] for name in ("batch_size", "length_policy", "variant", "state")},
        **_with_ends(cell, "latency_ms", "latency_per_batch_ms"),
        **_with_ends(cell, "latency_per_sample_ms"),
        **_with_ends(cell, "throughput_samples_per_s"),
        "throughput_batches_per_s": cell["throughput_samples_per_s"] / cell["batch_size"],
        **_with_ends(cell, "peak_memory_MiB"),
        "peak_memory_MiB_reason": cell.get("peak_memory_MiB_reason"),
        "peak_memory_of": "what torch allocated on the GPU" if on_gpu else "resident memory of the process",
        "peak_rss_MiB": cell.get("peak_rss_MiB"),
        "energy_per_sample_J": cell.get("energy_per_sample_J"),
        "energy_per_sample_J_reason": cell.get("energy_per_sample_J_reason"),
        "roofline_share": (cell.get("roofline") or {}).get("fraction"),
        "processes": cell["throughput_samples_per_s_repetitions"],
    }


def _with_ends(cell: dict[str, Any], name: str, called: str = "") -> dict[str, Any]:
    low, high = spread.ends(cell, name) or (None, None)
    called = called or name
    return {called: cell.get(name), f"{called}_low": low, f"{called}_high": high}
