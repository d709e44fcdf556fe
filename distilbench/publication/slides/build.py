"""The slides: a template over the published runs, their pictures, and a PowerPoint file with both."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from pathlib import Path

from distilbench import paths, studies
from distilbench.errors import DistilbenchError, RunError
from distilbench.publication import provenance, publish
from distilbench.report import charts
from distilbench.runs.folder import Run

STUDY = "distilbert"
DEPTH = "full"  # of what tells of the instrument
NEEDED = {"pypandoc": "pypandoc-binary", "pptx": "python-pptx"}
SCALE = 3  # pixels of a picture per point: sharp on a large screen


def build(folder: Path | None = None) -> Path:
    """Makes slides.pptx of the published runs, with its source and pictures beside it.

    Equal runs give equal bytes; the time inside the file is `publish.epoch`.

    Args:
        folder: where to; None: book/_build/slides of the checkout.

    Returns:
        The path of slides.pptx.

    Raises:
        DistilbenchError: pandoc or python-pptx is not installed, pandoc failed, a run that the slides need is not
            published, or it and its page disagree; the message says which.
    """
    if missing := [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]:
        raise DistilbenchError(
            f"the slides need {' and '.join(missing)}: make env EXTRAS=slides, or pip install 'distilbench[slides]'"
        )
    from distilbench.publication.slides import powerpoint

    moment = datetime.fromtimestamp(publish.epoch(), UTC)  # a bad one is said before the work
    folder = folder or paths.repo_root() / "book" / "_build" / "slides"
    with paths.hold_lock(folder / ".lock", "the slides are being made by another process"):
        deck = studies.kind_of(STUDY).showing.deck
        runs = {name: published_run(page) for name, page in deck.PAGES.items()}
        drawn, numbers = deck.pictures(runs), {name: deck.numbers_of(run) for name, run in runs.items()}
        for name, picture in drawn.items():
            paths.write_atomic(folder / f"{name}.png", charts.png(picture.drawn, scale=SCALE))
        source = folder / "slides.md"
        paths.write_atomic(source, deck.render(numbers, instruments(), drawn))
        return powerpoint.write(source, folder / "slides.pptx", moment)


def published_run(name: str) -> Run:
    """The run that a page of the report shows.

    Raises:
        RunError: there is no such page, its run is gone, or the two disagree.
    """
    page = publish.pages_root() / STUDY / f"{name}.ipynb"
    if page not in publish.pages():
        raise RunError(
            f"the slides show the run of page {STUDY}/{name}, which is not published: "
            f"`distilbench publish RUN --name {name}` (there is no {page})"
        )
    if problems := publish.problems(page):
        raise RunError("the slides cannot be made:\n" + "\n".join(f"- {problem}" for problem in problems))
    return publish.run_of(page)


def instruments() -> dict[str, dict[str, str]]:
    """What is published of the instrument, by kind: its table, its caption, its name and the hash of its readings.

    Raises:
        RunError: there is none, or it disagrees with its readings.
    """
    kinds = {name: kind() for name, kind in studies.INSTRUMENTS.items()}
    try:
        return {name: kind.showing.slide(provenance.instrument_of(kind, DEPTH)) for name, kind in kinds.items()}
    except RunError as error:
        raise RunError(f"the slides show what tells of the instrument: {error}") from None
