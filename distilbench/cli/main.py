"""The command line. Each command imports what it needs, so that --help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from distilbench import terminal
from distilbench.cli import cluster
from distilbench.cli.options import (
    AsJson,
    Files,
    LogFormat,
    Pairs,
    Profile,
    ResultsRoot,
    RunName,
    StudyName,
    given_of,
    print_json,
    print_summary,
    print_table,
)
from distilbench.errors import DataError, DistilbenchError, ParameterError, Stopped

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again

app = typer.Typer(
    help="Measures what transformer inference costs, into run folders that can be checked.\n\n"
    "Start with `distilbench doctor` (what can be measured here), then `distilbench run distilbert` (about three "
    "minutes), then `distilbench show latest`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
verify_app = typer.Typer(
    help="Check a run, or the text it was made with, against what was recorded.", no_args_is_help=True
)
app.add_typer(verify_app, name="verify")
app.add_typer(cluster.app)
app.add_typer(cluster.job_app, name="job")


@app.command()
def run(
    study: StudyName,
    profile: Profile = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    batch_sizes: Annotated[str | None, typer.Option(help="Comma-separated, such as 16,32.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    file: Files = None,
    param: Pairs = None,
    results_root: ResultsRoot = "",
    resume: Annotated[str, typer.Option(metavar="RUN", help="Go on with this run, with its own parameters.")] = "",
    new: Annotated[
        bool, typer.Option("--new", help="Start a new run even if one of this design is unfinished.")
    ] = False,
    as_json: AsJson = False,
    log_format: LogFormat = "text",
) -> None:
    """Run a study: its notebooks in order, into one run folder.

    A run that was interrupted is gone on with: the same command finds the newest unfinished run of the same design.
    """
    from distilbench import logs, paths
    from distilbench.execution import notebooks

    logs.setup(log_format)
    given = given_of(study, profile, param, file, device=device, batch_sizes=batch_sizes, dtype=dtype)
    if new and resume:
        raise ParameterError("--new starts a run, --resume goes on with one: give one of them")
    done = notebooks.run_study(study, given, resume, new, results_root)
    summary = paths.read_json(done.folder / "summary.json")
    status = done.status
    if as_json:
        print_json({"run_id": done.run_id, "folder": str(done.folder), "state": status["state"], "summary": summary})
    else:
        print_summary(done, summary)
        print()
        for what, where in (("run folder", ""), ("summary", "run_summary.md"), ("notebooks", "notebooks")):
            print(f"{what:>12}  {done.folder / where}")
        print(f"{'check it':>12}  distilbench verify run {done.run_id}")
    if status["state"] != "ok":
        raise DistilbenchError(f"run {done.run_id} ended as {status['state']}: {status['message']}")


@app.command()
def fetch(
    study: StudyName = "distilbert", profile: Profile = None, param: Pairs = None, as_json: AsJson = False
) -> None:
    """Fetch the model and the text of a study into the caches, for a machine that has no network later.

    Their labels and lengths are checked against each other now, as a run does before it measures.
    """
    from distilbench import studies

    p = studies.resolve(study, given_of(study, profile, param)).params
    manifest, info = studies.kind_of(study).measuring.fetch(p)
    if as_json:
        print_json({"data": manifest, "model": vars(info)})
        return
    print(f"text:  {manifest['name']}, {manifest['rows']} sentences, SHA-256 {manifest['content_sha256']}")
    print(f"model: {info.name}, {info.parameters:,} parameters, SHA-256 {info.sha256}")


@verify_app.command("run")
def verify_run(reference: RunName = "latest", results_root: ResultsRoot = "", as_json: AsJson = False) -> None:
    """Compute every number of a run (or of a calibration, by its folder) again; exit code 1 on any difference."""
    from distilbench import paths
    from distilbench.runs import find, verify
    from distilbench.runs.folder import Run

    own = (Path(reference) / "config.json").is_file()
    found = Run(paths.readable(Path(reference).resolve())) if own else find.find(reference, results_root)
    name, problems = found.run_id, verify.problems(found.folder)
    if as_json:
        print_json({"run_id": name, "problems": problems})
    else:
        print("\n".join(problems) or f"{name}: {found.kind.showing.counted(found)}, no difference")
    if problems:
        raise DistilbenchError(f"{name}: {len(problems)} difference(s) between its files")


@verify_app.command("book")
def verify_book(as_json: AsJson = False) -> None:
    """Compute every number that the built book shows again from raw files; exit code 1 on any difference."""
    from distilbench.publication import audit, provenance

    problems, count = audit.problems(provenance.book_root() / "_build" / "html")
    if as_json:
        print_json({"numbers": count, "problems": problems})
    else:
        print("\n".join(problems) or f"{count} numbers of the book computed again from raw files, no difference")
    if problems:
        raise DistilbenchError(f"the book: {len(problems)} number(s) or page(s) that raw files do not back")


@verify_app.command("release")
def verify_release(folder: Annotated[Path, typer.Argument(help="Folder of a release.")] = Path("dist")) -> None:
    """Check the sums of a release, and compute every summary in it again; exit code 1 on any difference."""
    from distilbench.publication import release as releasing

    if problems := releasing.problems(folder):
        print("\n".join(problems))
        raise DistilbenchError(f"{folder}: {len(problems)} difference(s)")
    print(f"{folder}: every checksum holds, every summary follows from its raw files")


@verify_app.command("data")
def verify_data(
    study: Annotated[str, typer.Argument(help="Name of the study.")] = "distilbert",
    profile: Profile = None,
    param: Pairs = None,
    as_json: AsJson = False,
) -> None:
    """Load a study's text and compare it with the hash of the first time; exit code 1 when it changed."""
    from distilbench import studies
    from distilbench.sources import texts as sources_texts

    texts = sources_texts.load_texts(studies.resolve(study, given_of(study, profile, param)).params)
    name, sha256 = texts.about["name"], texts.content_sha256()
    if as_json:
        print_json({"name": name, "rows": len(texts.texts), "content_sha256": sha256, "compared": not texts.first_seen})
    elif not texts.first_seen:
        print(f"{name}: {len(texts.texts)} sentences, unchanged: SHA-256 {sha256}")
    if texts.first_seen:
        raise DataError(f"{name} was seen for the first time, so nothing was compared; from now on it must be {sha256}")


@app.command()
def show(
    reference: RunName = "latest",
    results_root: ResultsRoot = "",
    form: Annotated[
        Literal["md", "csv", "latex"] | None,
        typer.Option("--format", help="For a paper or a spreadsheet, with a sentence to cite the run."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: its table, and what it cannot say."""
    from distilbench import paths
    from distilbench.runs import find

    if form and as_json:
        raise ParameterError("--format and --json exclude each other: give one of them")
    found = find.find(reference, results_root)
    status = found.status
    if not (found.folder / "summary.json").is_file():
        if as_json:
            print_json(status)
            return
        if form:
            raise DistilbenchError(f"run {found.run_id} is unfinished: there is no table yet")
        done = len(found.measured())
        print(f"run {found.run_id} is {status['state']}, {done} repetitions done. {status['message']}")
        print(f"go on with: distilbench run {found.config['study']} --resume {found.run_id}")
        return
    summary = paths.read_json(found.folder / "summary.json")
    if as_json:
        print_json(summary)
        return
    if form:
        from distilbench.report import export

        print(export.FORMATS[form](found))
        if form == "csv":  # a sentence in the file would be a row to every program that reads it
            print(export.citation(found), file=sys.stderr)
        return
    print(f"run {found.run_id} ({status['state']}), profile {summary['profile']}")
    print_summary(found, summary)
    from distilbench.report import load

    print(f"\ncite as: {load.citation(found)}")


@app.command()
def compare(
    base: Annotated[str, typer.Argument(help="The run to compare with.")],
    other: Annotated[str, typer.Argument(help="The run to judge.")],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="What makes no difference in practice; 0.02 is 2 %.")
    ] = 0.02,
    fail_on: Annotated[
        Literal["slower", "ambiguous"] | None,
        typer.Option(help="Exit code 1 when a cell is slower; `ambiguous`: or cannot be judged."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare even what differs in machine, text or model.")
    ] = False,
    results_root: ResultsRoot = "",
    as_json: AsJson = False,
) -> None:
    """Say of every cell of two runs: FASTER, SLOWER, SAME or AMBIGUOUS, with the interval of the ratio."""
    from collections import Counter

    from distilbench.report import compare as comparing
    from distilbench.runs import find

    one, two = (find.find(reference, results_root) for reference in (base, other))
    found = comparing.compare(one, two, threshold, force)
    notes = comparing.tolerated_differences(one, two) + (comparing.differences(one, two) if force else [])
    counts = Counter(cell.verdict for cell in found)
    if as_json:
        print_json({"base": one.run_id, "other": two.run_id, "notes": notes, "cells": [vars(cell) for cell in found]})
    else:
        print_table(comparing.table(found))
        print(f"\n{two.run_id} against {one.run_id}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
        print(f"SAME means within {threshold:.1%}; the verdicts hold together at {comparing.CONFIDENCE:.0%}.")
        for note in notes:
            print(f"- differs: {note}")
    bad = {"slower": ("SLOWER",), "ambiguous": ("SLOWER", "AMBIGUOUS")}.get(fail_on or "", ())
    if failed := [f"{cell.cell} {cell.verdict}" for cell in found if cell.verdict in bad]:
        raise DistilbenchError(f"{len(failed)} of {len(found)} cells: {', '.join(failed)}")


@app.command()
def publish(
    reference: RunName,
    name: Annotated[str, typer.Option(help="Name of the page; default: device and source of the model.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of the page of that name.")] = False,
    results_root: ResultsRoot = "",
) -> None:
    """Put a finished run into the report: its files into results/published/, its analysis into book/studies/.

    A calibration is given by its folder; the report's chapter "Can you trust the ruler?" shows it.

    Refused: runs that are unfinished, failed, not of the full profile, of uncommitted code, or not verifiable.
    """
    from distilbench import paths
    from distilbench.publication import publish as publishing
    from distilbench.runs import find
    from distilbench.runs.folder import Run

    run = Run(paths.readable(Path(reference).resolve())) if (Path(reference) / "config.json").is_file() else None
    if run and run.kind.slot:
        if name or replace:
            what = f"a {run.kind.name} takes the place of that of its {run.kind.slot}"
            raise ParameterError(f"--name and --replace are for runs: {what}")
        print(f"{run.kind.name:>12}  {publishing.publish_instrument(run.folder)}")
        return
    page, folder = publishing.publish(find.find(reference, results_root), name, replace)
    print(f"{'page':>12}  {page}")
    print(f"{'run':>12}  {folder}")
    print(f"{'next':>12}  make book, look at the page, then commit both")


@app.command()
def book(
    own: Annotated[bool, typer.Option(help="Also show the newest run of this machine that ended well.")] = True,
    results_root: ResultsRoot = "",
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


@app.command()
def pdf() -> None:
    """Build the report as book/_build/pdf/report.pdf: typeset by xelatex; without TeX, printed by Chromium."""
    from distilbench.publication import build as building
    from distilbench.publication import pdf as printing

    with building.build_lock():
        file, note = printing.build()
    print(f"{'report':>12}  {file}")
    if note:
        print(note, file=sys.stderr)


@app.command()
def slides() -> None:
    """Make twelve slides of the published runs, as PowerPoint, in book/_build/slides."""
    from distilbench.publication.slides import build as making

    print(f"{'slides':>12}  {making.build()}")


@app.command()
def release(
    target: Annotated[Path, typer.Argument(help="Folder to make anew.")] = Path("dist"),
    draft: Annotated[bool, typer.Option("--draft", help="Also of uncommitted code; the notes say so.")] = False,
) -> None:
    """Gather report, slides, results, records, runs and their checksums into a folder (`make release` builds them)."""
    from distilbench import paths
    from distilbench.publication import release as releasing

    build = paths.repo_root() / "book" / "_build"
    built = (build / "pdf" / "report.pdf", build / "slides" / "slides.pptx", build / "html")
    for file in releasing.release(paths.readable(target.resolve()), *built, draft=draft):
        print(f"{file.stat().st_size / 2**20:8.2f} MiB  {file}")


@app.command()
def analyse(
    study: StudyName = "distilbert",
    run_ids: Annotated[list[str] | None, typer.Argument(help="Runs to overlay; none: the newest finished one.")] = None,
    results_root: ResultsRoot = "",
    log_format: LogFormat = "text",
) -> None:
    """Analyse one run or several: plots, and what the numbers say. Needs no torch and no GPU."""
    from distilbench import logs
    from distilbench.execution import notebooks
    from distilbench.report import load

    logs.setup(log_format)
    chosen = notebooks.analyse(study, run_ids or [], results_root)
    for sentence in chosen[0].kind.showing.sentences(load.table(chosen)):
        print(f"- {sentence}")
    print(f"\n{'plots':>12}  {load.plots_of(chosen)}")
    print(f"{'notebook':>12}  {notebooks.analysis_of(chosen)}")


@app.command()
def calibrate(
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute (the default).")] = False,
    full: Annotated[bool, typer.Option("--full", help="Minutes: larger pools, smaller slow-downs.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="An hour: the pool is a sweep of a real model.")] = False,
    results_root: ResultsRoot = "",
    as_json: AsJson = False,
) -> None:
    """Test the instrument itself on known truths: overhead, sleeps, allocations, equal things, slow-downs, intervals.

    Exit code 1 where it is off.
    """
    from distilbench import paths, studies
    from distilbench.runs.folder import Run

    instrument = studies.INSTRUMENTS["calibration"]()
    chosen = [name for name, given in (("quick", quick), ("full", full), ("deep", deep)) if given]
    if len(chosen) > 1:
        raise ParameterError(f"--{' and --'.join(chosen)} exclude each other: give one of them")
    folder = instrument.measuring.calibrate(chosen[0] if chosen else "quick", results_root)
    summary = paths.read_json(folder / "summary.json")
    if as_json:
        print_json(summary)
    else:
        print_table(instrument.showing.cells(Run(folder), summary))
        print(f"\n{'calibration':>12}  {folder}")
    if off := [check["check"] for check in summary["checks"] if check["ok"] is False]:
        raise DistilbenchError(f"the instrument is off: {'; '.join(off)} (on a busy machine, try again on a quiet one)")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what can be measured on this machine, what not, and why."""
    from distilbench.cli import doctor as findings_of

    findings = findings_of.examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
        return
    from rich.console import Console
    from rich.table import Table

    colours = {"ok": "green", "limited": "yellow", "missing": "red"}
    table = Table(box=None, pad_edge=False)
    for title in ("what", "state", "found"):
        table.add_column(title)
    for finding in findings:
        table.add_row(finding.topic, f"[{colours[finding.state]}]{finding.state}[/]", finding.text)
    Console().print(table)


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the versions of distilbench and of what it measures with."""
    from distilbench.machine import environment

    versions = {name: number for name, number in environment.packages().items() if number}
    if as_json:
        print_json(versions)
    else:
        print("\n".join(f"{name} {number}" for name, number in versions.items()))


def join_pairs(words: list[str]) -> list[str]:
    """`-p KEY VALUE` (as papermill has it) as the one word that typer's repeatable options can take."""
    joined, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word in ("-p", "--param") and len(rest) >= 2 and "=" not in rest[0]:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM and its batch script may both send one: once is enough
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: errors for people as one message, never a traceback.

    Exit code 1 for them, 130 for Ctrl-C and SIGTERM, 75 when asked to stop with work left (a batch script requeues).
    Errors that no check foresaw are one line too, and DISTILBENCH_TRACEBACK=1 shows where they happened.
    """
    terminal.prepare()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _call()
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        sys.exit(STOPPED)
    except DistilbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # what typer makes of a KeyboardInterrupt
            print("interrupted: nothing that was measured is lost; the same command goes on from here", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.exit(1)
    except (OSError, RuntimeError, UnicodeError) as error:
        if os.environ.get(terminal.TRACEBACK):
            raise
        print(f"error: {terminal.unforeseen(error)}", file=sys.stderr)
        sys.exit(1)


def _call() -> None:
    from distilbench import paths

    if paths.source_date_epoch() is None:  # said here: libraries read the variable too, and end in a traceback
        os.environ.pop("SOURCE_DATE_EPOCH", None)
    try:
        app(args=join_pairs(sys.argv[1:]), prog_name=Path(sys.argv[0]).name, standalone_mode=True)
    finally:
        terminal.flush()


if __name__ == "__main__":
    main()
