"""Reading runs for the report: one table over several runs, every row with the run and the machine it came from."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench import paths, runs
from distilbench.errors import RunError
from distilbench.params import StudyParams

METRICS = ("latency_ms", "throughput_samples_per_s", "peak_memory_MiB", "energy_per_sample_J")


def choose(params: StudyParams) -> list[runs.Run]:
    """The runs to analyse: those of `run_ids` in their order, else `run_id`, else the newest finished one of the study.

    Raises:
        RunError: one is missing, unfinished or of another study; the message says which.
    """
    study, names = params.study, params.run_ids or [params.run_id] * bool(params.run_id)
    if names:
        chosen = [runs.find(name, params.results_root) for name in names]
    else:
        finished = [r for r in runs.all_runs(paths.results_root(params.results_root) / study) if _is_finished(r)]
        if not finished:
            raise RunError(f"there is no finished run of {study}: make one with `distilbench run {study}`")
        chosen = finished[-1:]
    for run in chosen:
        if run.config["study"] != study:
            raise RunError(f"run {run.run_id} is of study {run.config['study']!r}, not {study!r}")
        if not _is_finished(run):
            raise RunError(f"run {run.run_id} has no summary.json: go on with it first (--resume {run.run_id})")
    return chosen


def _is_finished(run: runs.Run) -> bool:
    return (run.folder / "summary.json").is_file()


def label(run: runs.Run) -> str:
    """What to call a run's device in legends: the GPU's name, or the CPU's with its usable cores."""
    env, device = paths.read_json(run.folder / "env.json"), run.config["parameters"]["device"]
    if device.startswith("cuda") and env["gpus"]:
        return env["gpus"][int(device.partition(":")[2] or 0)]["name"]
    return f"{env['cpu']['model']}, {len(env['cpu']['affinity'])} cores"


def labels(chosen: list[runs.Run]) -> dict[str, str]:
    """A label per run id, unique: runs on the same device are told apart by their day, then by their id."""
    plain = {run.run_id: label(run) for run in chosen}
    dated = {run.run_id: f"{plain[run.run_id]} ({run.config['created'][:10]})" for run in chosen}
    for candidate in (plain, dated):
        if len(set(candidate.values())) == len(candidate):
            return candidate
    return {run_id: f"{text} [{run_id[-8:]}]" for run_id, text in plain.items()}


def about(chosen: list[runs.Run]) -> list[dict[str, Any]]:
    """One row per run: what it is, on what, of what."""
    names, rows = labels(chosen), []
    for run in chosen:
        config, model = run.config, paths.read_json(run.folder / "model.json")
        data, env = paths.read_json(run.folder / "data.json"), paths.read_json(run.folder / "env.json")
        rows.append(
            {
                "run": run.run_id,
                "machine": names[run.run_id],
                "profile": config["parameters"]["profile"],
                "model": model["name"],
                "text": data["name"],
                "torch": env["packages"]["torch"],
            }
        )
    return rows


def table(chosen: list[runs.Run]) -> pd.DataFrame:
    """One row per cell of each run: the summary's fields, with `run_id`, `machine`, and one memory column.

    `peak_memory_MiB` is what limits the batch size on the device: GPU memory on CUDA, resident memory on CPU.
    """
    names, rows = labels(chosen), []
    for run in chosen:
        summary = paths.read_json(run.folder / "summary.json")
        for cell in summary["cells"]:
            rows.append({"run_id": run.run_id, "machine": names[run.run_id]} | _with_memory(cell))
    return pd.DataFrame(rows)


def _with_memory(cell: dict[str, Any]) -> dict[str, Any]:
    source = "peak_cuda_allocated_MiB" if cell["device"].startswith("cuda") else "peak_rss_MiB"
    return cell | {
        "peak_memory_MiB": cell[source],
        "peak_memory_MiB_range": cell.get(f"{source}_range"),
        "peak_memory_MiB_reason": cell.get(f"{source}_reason"),
    }
