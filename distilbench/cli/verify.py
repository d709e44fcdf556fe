"""Commands that compute what is shown again, and compare it with what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distilbench.cli import options
from distilbench.errors import DataError, DistilbenchError


def run(
    reference: options.RunName = "latest", results_root: options.ResultsRoot = "", as_json: options.AsJson = False
) -> None:
    """Compute every number of a run (or of a calibration, by its folder) again; exit code 1 on any difference."""
    from distilbench.anomaly import gather
    from distilbench.runs import verify

    given = options.run_of(reference, results_root, or_calibration=True)
    problems = [*verify.problems(given.folder), *gather.problems(given)]
    lines = problems or [
        f"{one.run_id}: {one.kind.showing.counted(one)}, no difference" for one in (given, *given.sections)
    ]
    options.print_result(as_json, {"run_id": given.run_id, "problems": problems}, *lines)
    if problems:
        raise DistilbenchError(f"{given.run_id}: {len(problems)} difference(s) between its files")


def book(as_json: options.AsJson = False) -> None:
    """Compute every number that the built book shows again from raw files; exit code 1 on any difference."""
    from distilbench.publication import audit, provenance

    problems, count = audit.problems(provenance.book_root() / "_build" / "html")
    lines = problems or [f"{count} numbers of the book computed again from raw files, no difference"]
    options.print_result(as_json, {"numbers": count, "problems": problems}, *lines)
    if problems:
        raise DistilbenchError(f"the book: {len(problems)} number(s) or page(s) that raw files do not back")


def release(folder: Annotated[Path, typer.Argument(help="Folder of a release.")] = Path("dist")) -> None:
    """Check the sums of a release, and compute every summary in it again; exit code 1 on any difference."""
    from distilbench.publication import release as releasing

    problems = releasing.problems(folder)
    print("\n".join(problems) or f"{folder}: every checksum holds, every summary follows from its raw files")
    if problems:
        raise DistilbenchError(f"{folder}: {len(problems)} difference(s)")


def data(
    study: Annotated[str, typer.Argument(help="Name of the study.")] = "distilbert",
    profile: options.Profile = None,
    param: options.Pairs = None,
    as_json: options.AsJson = False,
) -> None:
    """Load a study's text and compare it with the hash of the first time; exit code 1 when it changed."""
    from distilbench import studies
    from distilbench.sources import texts as sources_texts
    from distilbench.sources.parameters import with_sources

    params = with_sources(studies.resolve(study, options.given_of(study, profile, param)).params)
    texts = sources_texts.load_texts(params)
    name, rows, sha256, new = texts.about["name"], len(texts.texts), texts.content_sha256(), texts.first_seen
    content = {"name": name, "rows": rows, "content_sha256": sha256, "compared": not new}
    unchanged = [] if new else [f"{name}: {rows} sentences, unchanged: SHA-256 {sha256}"]
    options.print_result(as_json, content, *unchanged)
    if new:
        raise DataError(f"{name} was seen for the first time, so nothing was compared; from now on it must be {sha256}")
