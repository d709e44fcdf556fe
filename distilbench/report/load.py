"""Reading runs for the report: one table over several runs, every row with the run and the machine it came from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench import paths
from distilbench.errors import RunError
from distilbench.machine import environment
from distilbench.report import doubts
from distilbench.runs import find
from distilbench.runs.folder import Run
from distilbench.runs.parameters import PROFILES, StudyParams


def choose(params: StudyParams) -> list[Run]:
    """The runs to analyse: those of `run_ids` in their order, else `run_id`, else the newest finished one of the study.

    Raises:
        RunError: one is missing, unfinished or of another study; the message says which.
    """
    study, names = params.study, params.run_ids or [params.run_id] * bool(params.run_id)
    if names:
        chosen = [find.find(name, params.results_root) for name in names]
    else:
        finished = [run for run in find.all_runs(params.runs_folder) if run.is_finished]
        if not finished:
            raise RunError(f"there is no finished run of {study}: make one with `distilbench run {study}`")
        chosen = finished[-1:]
    for run in chosen:
        if run.config["study"] != study:
            raise RunError(f"run {run.run_id} is of study {run.config['study']!r}, not {study!r}")
        if not run.is_finished:
            raise RunError(f"run {run.run_id} has no summary.json: resume it first (--resume {run.run_id})")
    return chosen


def output_folder(chosen: list[Run]) -> Path:
    """Where what is made of these runs goes: the first one's folder, but never that of a published run.

    An analysis of published runs only gets a folder of its own beside one's own runs.
    """
    own = [run for run in chosen if paths.published_root() not in run.folder.parents]
    if own:
        return own[0].folder
    return paths.results_root() / chosen[0].config["study"] / f"analysis-of-{chosen[0].run_id}"


def overlay_suffix(chosen: list[Run]) -> str:
    """Tells an overlay from the analysis of one run: nothing, or the ends of the other runs' ids."""
    others = [run.run_id[-8:] for run in chosen if run.folder != output_folder(chosen)]
    return f"-with-{'-'.join(others)}" if len(chosen) > 1 else ""


def plots_of(chosen: list[Run]) -> Path:
    """Where plots of these runs go; overlays have a folder of their own there."""
    return output_folder(chosen) / "plots" / overlay_suffix(chosen).removeprefix("-")


def label(run: Run) -> str:
    """What to call a run's device in legends: the GPU's name, or the CPU's with its usable cores and a kept heap."""
    env, device = run.env, run.config["parameters"]["device"]
    if device.startswith("cuda"):  # by what the workers found: NVML's order is not torch's
        found = [record.proof["gpu"] for record in run.repetitions() if "gpu" in record.proof]
        return found[0] if found else f"{device} (unnamed)"
    cores = len(env["cpu"]["affinity"])
    kept = ", heap kept" if run.config["parameters"].get("heap") == "keep" else ""
    return f"{re.sub(r'[(](R|TM)[)]', '', env['cpu']['model'])}, {cores} core{'s' if cores > 1 else ''}{kept}"


def labels(chosen: list[Run]) -> dict[str, str]:
    """A label per run id, unique: runs on the same device are told apart by their model, their day, or their id."""
    plain = {run.run_id: label(run) for run in chosen}
    model = {run.run_id: f"{plain[run.run_id]}: {run.kind.showing.title(run)}" for run in chosen}
    dated = {run.run_id: f"{plain[run.run_id]} ({run.config['created'][:10]})" for run in chosen}
    for candidate in (plain, model, dated):
        if len(set(candidate.values())) == len(candidate):
            return candidate
    return {run_id: f"{text} [{run_id[-8:]}]" for run_id, text in plain.items()}


def about(chosen: list[Run]) -> list[dict[str, Any]]:
    """Per run: what it is, on what, of what, with what."""
    names, rows = labels(chosen), []
    for run in chosen:
        config, env = run.config, run.env
        profile, packages = config["parameters"]["profile"], env["packages"]
        rows.append(
            {"run": run.run_id, "profile": f"{profile}: {PROFILES[profile]}", "machine": names[run.run_id]}
            | run.kind.showing.about(run)
            | {
                "software": f"torch {packages['torch']}, transformers {packages['transformers']}, "
                f"Python {env['python']['version']}",
                "measured": f"{config['created'][:10]}, code {_code(env['git'])}",
            }
        )
    return rows


def other_model(section: Run) -> str:
    """The model that a section measured where its run measured another one, as text; "" where they are the same.

    Random weights are timed and have no accuracy: then another model's is shown, under its own name.
    """
    files = [folder / "model.json" for folder in (section.folder, section.folder.parent)]
    if not all(file.is_file() for file in files):
        return ""
    own, of_run = map(paths.read_json, files)
    return "" if own["sha256"] == of_run["sha256"] else f"another model than the one that was timed: {own['name']}"


def processes(run: Run) -> dict[str, int]:
    """By pass, how many processes measured each cell: what was measured, not what was asked for."""
    counts: dict[tuple[str, str], int] = {}
    for record in run.measured():
        counts[record.pass_, record.cell] = counts.get((record.pass_, record.cell), 0) + 1
    return {where: max(n for (of, _), n in counts.items() if of == where) for where in sorted({of for of, _ in counts})}


def _code(git: dict[str, Any]) -> str:
    if not git["sha"]:
        known = git.get("reason") in (None, environment.NOT_UNDER_GIT)
        return environment.NOT_UNDER_GIT if known else "of an unknown commit"
    return git["sha"][:12] + (" with uncommitted changes" if git["dirty"] else "")


def citation(run: Run) -> str:
    """One sentence with which to cite a run: what, hardware, versions, n, run id, and what it is not good for."""
    (row,), params = about([run]), run.config["parameters"]
    version = run.env["packages"]["distilbench"]
    doubt = "" if params["profile"] == "full" else f" (profile {row['profile']})"
    return (
        f"{run.kind.showing.cited(run)} on {row['machine']}; {row['software']}; "
        f"{_n(run)}; measured with distilbench {version}, "
        f"{row['measured']}, run {run.run_id}{doubt}."
    )


def _n(run: Run) -> str:
    (pass_name,) = run.kind.comparable.values()
    timed = processes(run).get(pass_name)
    start = "forked" if any(record.start == "forked" for record in run.measured()) else "fresh"
    return f"n = {timed} {start} processes per cell" if timed else "not timed"


def table(chosen: list[Run]) -> pd.DataFrame:
    """One row per cell of each run: what its kind says of a cell, with `run_id` and `machine`."""
    names = labels(chosen)
    return pd.DataFrame(
        {"run_id": run.run_id, "machine": names[run.run_id]} | row
        for run in chosen
        for row in run.kind.showing.rows(run)
    )


def limitations(chosen: list[Run]) -> pd.DataFrame:
    """What the runs cannot say: one row per cause of doubt, worst first, with the cells that have it.

    A section that is measured later has no say yet.
    """
    names = labels(chosen)
    found = {}
    for run in chosen:
        found |= {
            names[run.run_id] if one is run else f"{names[run.run_id]}, {one.kind.name}": causes(one)
            for one in (run, *(section for section in run.sections if section.is_finished))
        }
    return doubts.table(found)


def every_doubt(run: Run) -> list[str]:
    """What a run and its sections cannot say, each cell by itself."""
    of_sections = [f"{one.kind.name}: {line}" for one in run.sections for line in one.kind.showing.limitations(one)]
    return [*run.kind.showing.limitations(run), *of_sections]


def causes(run: Run) -> list[doubts.Doubt]:
    """The doubts of a run without its sections, by cause."""
    return run.kind.showing.causes(run, run.summary)
