"""Commands that show, compare and analyse runs, and put them into what people read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from distilbench import paths
from distilbench.cli import options
from distilbench.errors import DistilbenchError, ParameterError


def show(
    reference: options.RunName = "latest",
    results_root: options.ResultsRoot = "",
    form: Annotated[
        Literal["md", "csv", "latex"] | None,
        typer.Option("--format", help="Print it for a paper or a spreadsheet, with a sentence to cite the run."),
    ] = None,
    doubts: Annotated[bool, typer.Option("--doubts", help="Every doubt of every cell, in full; no table.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show a run: its table, and what it cannot say, by cause."""
    from distilbench.report import export, load

    given = {"--format": form, "--json": as_json, "--doubts": doubts}
    if len(several := [name for name, value in given.items() if value]) > 1:
        raise ParameterError(f"{' and '.join(several)} exclude each other: give one of them")
    run = options.run_of(reference, results_root)
    status = run.status
    if run.is_finished and form:
        print(export.FORMATS[form](run))
        if form == "csv":  # a sentence in the file would be a row to every program that reads it
            print(export.citation(run), file=sys.stderr)
    elif run.is_finished and doubts:
        print("\n".join(f"- {line}" for line in load.every_doubt(run) or ["no doubts were recorded"]))
    elif run.is_finished:
        summary = run.summary
        title = f"run {run.run_id} ({status['state']}), profile {summary['profile']}"
        parts = [title, *options.summary_parts(run, summary), f"\ncite as: {export.citation(run)}"]
        options.print_result(as_json, summary, *parts)
    elif form or doubts:
        raise DistilbenchError(f"run {run.run_id} is unfinished: there is no {'table' if form else 'summary'} yet")
    else:
        done = f"{len(run.measured())} repetitions done. {status['message']}"
        text = f"run {run.run_id} is {status['state']}, {done}\nto resume: {run.resume_command}"
        options.print_result(as_json, status, text)


def compare(
    base: Annotated[str, typer.Argument(help="The run to compare with.")],
    other: Annotated[str, typer.Argument(help="The run to judge.")],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="The smallest difference that matters in practice; 0.02 is 2 %.")
    ] = 0.02,
    fail_on: Annotated[
        Literal["slower", "ambiguous"] | None,
        typer.Option(help="Exit code 1 when a cell is slower; `ambiguous`: or cannot be judged."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare even what differs in machine, text or model.")
    ] = False,
    results_root: options.ResultsRoot = "",
    as_json: options.AsJson = False,
) -> None:
    """Say of every cell of two runs: FASTER, SLOWER, SAME or AMBIGUOUS, with the interval of the ratio."""
    from collections import Counter

    from distilbench.report import compare as comparing

    one, two = options.run_of(base, results_root), options.run_of(other, results_root)
    cells = comparing.compare(one, two, threshold, force)
    notes = comparing.tolerated_differences(one, two) + (comparing.differences(one, two) if force else [])
    counts = ", ".join(f"{n} {verdict}" for verdict, n in Counter(cell.verdict for cell in cells).items())
    options.print_result(
        as_json,
        {"base": one.run_id, "other": two.run_id, "notes": notes, "cells": [cell.as_json() for cell in cells]},
        comparing.table(cells),
        f"\n{two.run_id} against {one.run_id}: {counts}",
        f"SAME means within {threshold:.1%}; the verdicts hold together at {comparing.CONFIDENCE:.0%}.",
        *(f"- differs: {note}" for note in notes),
    )
    bad = {"slower": ("SLOWER",), "ambiguous": ("SLOWER", "AMBIGUOUS")}.get(fail_on or "", ())
    if failed := [f"{cell.cell} {cell.verdict}" for cell in cells if cell.verdict in bad]:
        raise DistilbenchError(f"{len(failed)} of {len(cells)} cells: {', '.join(failed)}")


def claims(
    run: Annotated[str, typer.Option("--run", help="Hold the claims against this run alone; it decides nothing.")] = "",
    results_root: options.ResultsRoot = "",
    as_json: options.AsJson = False,
) -> None:
    """Hold the claims of params/claims.yml against the published runs, and say which of them are REPRODUCED.

    The exit code is 0 whatever the verdicts are.
    """
    from distilbench.publication.claims import model, page, trial
    from distilbench.runs import find

    every = model.load()
    if run:
        given = options.run_of(run, results_root)
        outcomes = [trial.try_claim(claim, [given]) for claim in every if claim.study == given.config["study"]]
    else:
        outcomes = trial.before(every, find.published_runs())
    lines = list(page.lines(outcomes)) or [f"no claim is about what run {given.run_id} measured"]
    options.print_result(as_json, [page.as_json(one) for one in outcomes], *lines)


def analyse(
    study: options.StudyName = "distilbert",
    run_ids: Annotated[list[str] | None, typer.Argument(help="Runs to overlay; none: the newest finished one.")] = None,
    results_root: options.ResultsRoot = "",
    log_format: options.LogFormat = "text",
) -> None:
    """Analyse one run or several: plots, and what the numbers say. Needs no torch and no GPU."""
    from distilbench.execution import notebooks
    from distilbench.report import load

    chosen = notebooks.analyse(study, run_ids or [], results_root)
    for sentence in chosen[0].kind.showing.sentences(load.table(chosen)):
        print(f"- {sentence}")
    print(f"\n{'plots':>12}  {load.plots_of(chosen)}")
    print(f"{'notebook':>12}  {notebooks.analysis_of(chosen)}")


def publish(
    reference: options.RunName,
    name: Annotated[str, typer.Option(help="Name of the page; default: device and source of the model.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the page of that name.")] = False,
    results_root: options.ResultsRoot = "",
) -> None:
    """Put a finished run into the report: its files into results/published/, its analysis into book/studies/.

    A calibration is given by its folder; the report's chapter "Can you trust the instrument?" shows it.

    Refused: runs that are unfinished, failed, not of the full profile, of uncommitted code, or not verifiable.
    """
    from distilbench.publication import publish as publishing

    run = options.run_of(reference, results_root, or_calibration=True)
    if not run.kind.slot:
        page, folder = publishing.publish(run, name, replace)
        print(f"{'page':>12}  {page}")
        print(f"{'run':>12}  {folder}")
        print(f"{'next':>12}  make book, look at the page, then commit both")
        return
    if name or replace:
        what = f"a {run.kind.name} takes the place of that of its {run.kind.slot}"
        raise ParameterError(f"--name and --replace are for runs: {what}")
    print(f"{run.kind.name:>12}  {publishing.publish_instrument(run.folder)}")


def book(
    own: Annotated[bool, typer.Option(help="Also show the newest run of this machine that ended well.")] = True,
    results_root: options.ResultsRoot = "",
) -> None:
    """Build the report into book/_build/html, with a page "Your run" for the newest run of this machine."""
    from distilbench.execution import notebooks
    from distilbench.publication import build as building
    from distilbench.publication import publish as publishing

    run = publishing.newest_ok(results_root) if own else None
    with building.build_lock():
        if run and not publishing.is_analysed(run):
            notebooks.analyse(run.config["study"], [run.run_id], str(run.folder.parent.parent))
        page = building.build(run)
    print(f"{'your run' if run else 'report':>12}  {page}")
    if own and not run:
        print(f"the report has no page for a run of this machine: {publishing.why_none(results_root)}")


def pdf() -> None:
    """Build the report as book/_build/pdf/report.pdf: typeset by xelatex; without TeX, printed by Chromium."""
    from distilbench.publication import build as building
    from distilbench.publication import pdf as printing

    with building.build_lock():
        file, note = printing.build()
    print(f"{'report':>12}  {file}")
    if note:
        print(note, file=sys.stderr)


def slides() -> None:
    """Make twelve slides of the published runs, as PowerPoint, in book/_build/slides."""
    from distilbench.publication.slides import build as making

    print(f"{'slides':>12}  {making.build()}")


def release(
    target: Annotated[Path, typer.Argument(help="Folder to make anew.")] = Path("dist"),
    draft: Annotated[bool, typer.Option("--draft", help="Allow uncommitted code; the notes say so.")] = False,
) -> None:
    """Gather report, slides, results, records, runs and their checksums into a folder (`make release` builds them)."""
    from distilbench.publication import release as releasing

    build = paths.repo_root() / "book" / "_build"
    built = (build / "pdf" / "report.pdf", build / "slides" / "slides.pptx", build / "html")
    for file in releasing.release(paths.readable(target.resolve()), *built, draft=draft):
        print(f"{file.stat().st_size / 2**20:8.2f} MiB  {file}")
