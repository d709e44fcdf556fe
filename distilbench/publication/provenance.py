"""A number's birth certificate: the run, the field and the hash of the raw file that it comes from."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from distilbench import paths, studies
from distilbench.errors import RunError
from distilbench.publication import publish
from distilbench.report import glue
from distilbench.runs import find, verify
from distilbench.runs.folder import Run
from distilbench.runs.measurement import Measurement


@dataclass(frozen=True)
class Certificate:
    """Where one shown number comes from."""

    #: the published page that carries it, relative to the book, such as studies/distilbert/cpu-random.ipynb; or what
    #: is published of the instrument, such as calibration/full
    page: str
    field: str  # its name there (see `glue.values`)
    run_id: str
    raw: str  # name of the run's raw file
    raw_sha256: str  # of that file
    form: str = ""  # how it is written, as `format` takes it; "" as it is
    text: str = ""  # the number as shown

    @property
    def source(self) -> str:
        """What a caption says."""
        return f"run {self.run_id} ({self.raw} {self.raw_sha256[:16]})"

    def __str__(self) -> str:
        return f"{self.field} of run {self.run_id}; {self.raw} has SHA-256 {self.raw_sha256}"


def book_root() -> Path:
    """Where chapters and published pages are."""
    return paths.repo_root() / "book"


def run_of(page: str) -> Run:
    """The published run that a page shows; or the folder that tells of the instrument.

    Raises:
        RunError: there is none, or what is told of the instrument disagrees with its readings.
    """
    kind, _, slot = page.partition("/")
    if kind in studies.INSTRUMENTS:
        return Run(instrument_of(studies.instrument(kind), slot))
    return publish.run_of(book_root() / page)


def instrument_of(kind: Measurement, slot: str) -> Path:
    """The published folder that tells of the instrument, for that value of its kind's `slot`.

    Raises:
        RunError: there is none, or it disagrees with its readings.
    """
    folder = find.published_instrument(kind, slot)
    if folder is None:
        what = f"no {kind.name} of {kind.slot} {slot!r} is published"
        raise RunError(f"{what}: make one, then `distilbench publish` with its folder")
    if problem := _first_problem(folder, max(file.stat().st_mtime_ns for file in folder.iterdir())):
        raise RunError(f"{kind.name} {folder.name} disagrees with its readings: {problem}")
    return folder


@lru_cache(maxsize=64)
def _first_problem(folder: Path, changed: int) -> str:
    """What `verify` says first; asked for by each number that a chapter takes."""
    return next(iter(verify.problems(folder)), "")


def certify(page: str, field: str, form: str = "") -> Certificate:
    """The number of that name on a published page, with where it comes from.

    Raises:
        RunError: there is no such page or no such number, or it cannot be written in that form.
    """
    if page.partition("/")[0] not in studies.INSTRUMENTS and not (book_root() / page).is_file():
        known = ", ".join(str(one.relative_to(book_root())) for one in publish.pages())
        raise RunError(f"no page {page} is published; there are {known or 'none'}")
    values = carried(page)
    if field not in values:
        raise RunError(f"page {page} carries no number {field!r}")
    return replace(certify_picture(page, field), form=form, text=written(values[field], form))


def certify_picture(page: str, label: str) -> Certificate:
    """A figure or a table of a published page, such as fig-distilbert-cpu-random-latency, with where it comes from."""
    run = run_of(page)
    return Certificate(page, label, run.run_id, run.raw.name, _sha256(run.raw, run.raw.stat().st_mtime_ns))


def carried(page: str) -> dict[str, glue.Value]:
    """The numbers that a published page carries, or that are published of the instrument, by name."""
    if page.partition("/")[0] in studies.INSTRUMENTS:
        return glue.values(run_of(page))
    file = book_root() / page
    return _carried(file, file.stat().st_mtime_ns)


def written(value: glue.Value, form: str) -> str:
    """A value as the book writes it.

    Raises:
        RunError: it cannot be written so.
    """
    try:
        return format(value, form)
    except ValueError as error:
        raise RunError(f"{value!r} cannot be written as {form!r}: {error}") from None


@lru_cache(maxsize=64)
def _carried(page: Path, changed: int) -> dict[str, glue.Value]:
    return glue.read(paths.read_json(page))


@lru_cache(maxsize=64)
def _sha256(raw: Path, changed: int) -> str:
    return paths.sha256_file(raw)


def values_from_raw(run: Run) -> dict[str, glue.Value]:
    """Every number of a run, computed again from its raw files; its own summary.json is not looked at.

    Raises:
        RunError: a raw file is missing, damaged, or not the one that was committed.
    """
    with from_raw(run) as again:
        return glue.values(again)


@contextmanager
def from_raw(run: Run) -> Iterator[Run]:
    """A copy of a run whose summary.json is computed again from its raw files; gone on leaving.

    Raises:
        RunError: as `values_from_raw`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / run.run_id
        shutil.copytree(run.folder, copy)
        for one in (copied := Run(copy), *copied.sections):
            paths.write_json(one.folder / "summary.json", one.kind.summarise(one.folder))
        yield copied
