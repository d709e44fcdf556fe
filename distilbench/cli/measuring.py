"""Commands that measure, and that say what can be measured, and with what."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distilbench.cli import options
from distilbench.errors import DistilbenchError, ParameterError

if TYPE_CHECKING:
    from distilbench.runs.parameters import StudyParams


def run(
    study: options.StudyName,
    profile: options.Profile = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    batch_sizes: options.BatchSizes = None,
    optimal: Annotated[
        bool, typer.Option("--optimal", help="The batch size with the best throughput of an earlier run like this.")
    ] = False,
    max_latency_ms: options.MaxLatency = None,
    max_memory_mib: options.MaxMemory = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    file: options.Files = None,
    param: options.Pairs = None,
    results_root: options.ResultsRoot = "",
    resume: Annotated[str, typer.Option(metavar="RUN", help="Resume this run, with its own parameters.")] = "",
    new: Annotated[
        bool, typer.Option("--new", help="Start a new run even if one of this design is unfinished.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only load the model and classify five sentences: no run is made.")
    ] = False,
    skip_download: Annotated[
        bool, typer.Option("--skip-download", help="Fetch nothing: use what is in the caches, or say what is not.")
    ] = False,
    as_json: options.AsJson = False,
    log_format: options.LogFormat = "text",
) -> None:
    """Run a study: its notebooks in order, into one run folder.

    To resume an interrupted run, repeat the command: it finds the newest unfinished run of the same design.
    """
    from distilbench.execution import notebooks

    given = options.given_of(study, profile, param, file, device=device, batch_sizes=batch_sizes, dtype=dtype)
    if new and resume:
        raise ParameterError("--new starts a run, --resume resumes one: give one of them")
    if quick and (new or resume):
        raise ParameterError("--quick makes no run: give neither --new nor --resume with it")
    if skip_download:
        _skip_downloads(notebooks.resolve(study, given, resume, results_root).params)
    if optimal:
        given |= _optimal(study, given, resume, results_root, max_latency_ms, max_memory_mib)
    elif max_latency_ms is not None or max_memory_mib is not None:
        raise ParameterError("--max-latency-ms and --max-memory-mib limit what --optimal chooses: give it, too")
    if quick:
        _first_look(notebooks.resolve(study, given).params, as_json)
        return
    done = notebooks.run_study(study, given, resume, new, results_root)
    folder, status, summary = done.folder, done.status, done.summary
    options.print_result(
        as_json,
        {"run_id": done.run_id, "folder": str(folder), "state": status["state"], "summary": summary},
        *options.summary_parts(done, summary, brief=summary["profile"] != "full"),
        f"\n{'run folder':>12}  {folder}",
        f"{'summary':>12}  {folder / 'run_summary.md'}",
        f"{'notebooks':>12}  {folder / 'notebooks'}",
        f"{'check it':>12}  distilbench verify run {done.run_id}",
        *_what_comes_next(study, summary["profile"]),
    )
    if status["state"] != "ok":
        raise DistilbenchError(f"run {done.run_id} ended as {status['state']}: {status['message']}")


def _optimal(
    study: str, given: dict[str, Any], resume: str, results_root: str, latency_ms: float | None, memory: float | None
) -> dict[str, Any]:
    """The batch sizes of a run with --optimal; says which run they come from."""
    from distilbench import studies

    if resume or "batch_sizes" in given:
        raise ParameterError(
            "--optimal finds the batch size; --batch-sizes names it, --resume has it: give one of them"
        )
    params = studies.resolve(study, given).params
    size, why = options.optimal(study, params.device, results_root or params.results_root, latency_ms, memory)
    print(why, file=sys.stderr)
    return {"batch_sizes": [size]}


def _skip_downloads(params: StudyParams) -> None:
    from distilbench.sources import offline

    offline.skip_downloads()
    offline.require_cached(params)


def _first_look(params: StudyParams, as_json: bool) -> None:
    """Five sentences as a table; nothing is written."""
    from textwrap import shorten

    from distilbench.sources import quick
    from distilbench.sources.parameters import with_sources

    model, text, rows = quick.classify(with_sources(params))
    shown = [
        {"text": shorten(row["text"], 60), "label": row["label"], "predicted": row["predicted"] or "–"}
        | {"probability": "–" if row["probability"] is None else f"{row['probability']:.3f}"}
        for row in rows
    ]
    no_answer = [quick.NO_ANSWER + " (real answers without a hub: -p source embedded)"]
    options.print_result(
        as_json,
        {"model": vars(model), "text": text, "samples": rows},
        shown,
        f"\n{'model':>12}  {model.name}, {model.parameters:,} parameters, loaded in {model.load_s:.1f} s",
        f"{'text':>12}  {text}",
        *(no_answer if model.source == "random" else []),
        "a first look: nothing was measured, and there is no run folder",
    )


def _what_comes_next(study: str, profile: str) -> list[str]:
    """The next command, and the page that it makes; the report shows no run of the ci profile."""
    from distilbench import paths

    if profile == "ci":
        return [f"{'next':>12}  distilbench run {study} --profile smoke"]
    page = paths.repo_root() / "book" / "_build" / "html" / "your-run.html"
    return [f"{'report page':>12}  {page} (the next command makes it)", f"{'next':>12}  distilbench book"]


def fetch(
    study: options.StudyName = "distilbert",
    profile: options.Profile = None,
    param: options.Pairs = None,
    as_json: options.AsJson = False,
) -> None:
    """Fetch the model and the text of a study into the caches, for a machine that has no network later.

    Their labels and lengths are checked against each other now, as a run does before it measures.
    """
    from distilbench import studies

    params = studies.resolve(study, options.given_of(study, profile, param)).params
    data, model = studies.kind_of(study).measuring.fetch(params)
    amount = f"{data['rows']} sentences" if "rows" in data else f"{data['tokens']:,} tokens"
    sha256 = data.get("content_sha256") or data["sha256"]
    options.print_result(
        as_json,
        {"data": data, "model": vars(model)},
        f"text:  {data['name']}, {amount}, SHA-256 {sha256}",
        f"model: {model.name}, {model.parameters:,} parameters, SHA-256 {model.sha256}",
    )


def calibrate(
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute (the default).")] = False,
    full: Annotated[bool, typer.Option("--full", help="Minutes: larger pools, smaller slow-downs.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="An hour: the pool is a sweep of a real model.")] = False,
    forks: Annotated[bool, typer.Option("--forks", help="Half an hour: forked against fresh processes.")] = False,
    kind: Annotated[str, typer.Option(help="Which test, where there are several; default: the first.")] = "",
    results_root: options.ResultsRoot = "",
    as_json: options.AsJson = False,
) -> None:
    """Test the instrument itself on known truths: overhead, sleeps, allocations, equal things, slow-downs, intervals.

    Exit code 1 where it is off.
    """
    from distilbench import studies
    from distilbench.runs.folder import Run

    instrument = studies.instrument(kind)
    chosen = [name for name, given in {"quick": quick, "full": full, "deep": deep, "forks": forks}.items() if given]
    if len(chosen) > 1:
        raise ParameterError(f"give one of --{' and --'.join(chosen)}, not several")
    folder = instrument.measuring.calibrate(chosen[0] if chosen else "quick", results_root)
    summary = Run(folder).summary
    checks = instrument.showing.cells(Run(folder), summary)
    options.print_result(as_json, summary, checks, f"\n{instrument.name:>12}  {folder}")
    if off := [check["check"] for check in summary["checks"] if check["ok"] is False]:
        raise DistilbenchError(f"the instrument is off: {'; '.join(off)} (on a busy machine, try again on a quiet one)")


def doctor(as_json: options.AsJson = False) -> None:
    """Say what can be measured on this machine, what not, and why."""
    from rich.text import Text

    from distilbench.cli import doctor as looks

    colours = {"ok": "green", "limited": "yellow", "missing": "red"}
    findings = looks.examine()
    rows = [{"what": f["topic"], "state": Text(f["state"], colours[f["state"]]), "found": f["text"]} for f in findings]
    options.print_result(as_json, findings, rows)


def version(as_json: options.AsJson = False) -> None:
    """Print the versions of distilbench and of what it measures with."""
    from distilbench.machine import environment

    versions = {name: number for name, number in environment.packages().items() if number}
    options.print_result(as_json, versions, *(f"{name} {number}" for name, number in versions.items()))
