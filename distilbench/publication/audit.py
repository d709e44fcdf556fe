"""The built book audited: every number that it shows is computed again from raw files, and none is typed."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import NamedTuple

from distilbench import paths
from distilbench.errors import RunError
from distilbench.publication import provenance, publish
from distilbench.publication.claims import page as claims
from distilbench.publication.typed_numbers import typed_results
from distilbench.report import glue

#: A number, or the source in a caption, as `sphinx_extension` marks it; the PDF is written from the same nodes.
MARKED = re.compile(r"<span ([^>]*\bdb-(?:number|source)\b[^>]*)>([^<]*)</span>")
ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')


class Shown(NamedTuple):
    """A number as a built page shows it, with what it says it is; or the source in a caption, which names its run."""

    file: str  # relative to the built pages
    text: str
    page: str  # what its certificate says
    field: str  # of a source, the label of its figure or table
    form: str
    raw_sha256: str
    is_source: bool


def shown_in(folder: Path) -> list[Shown]:
    """Every marked number of the built pages, and every source in a caption."""
    shown = []
    for file in sorted(folder.rglob("*.html")):
        for attributes, text in MARKED.findall(file.read_text(encoding="utf-8")):
            mark = {name: html.unescape(value) for name, value in ATTRIBUTE.findall(attributes)}
            source = mark["data-page"], mark["data-field"], mark.get("data-form", ""), mark["data-raw"]
            name, is_source = str(file.relative_to(folder)), "db-source" in mark["class"].split()
            shown.append(Shown(name, html.unescape(text), *source, is_source))
    return shown


def problems(built: Path) -> tuple[list[str], int]:
    """What the built book shows otherwise than the raw files say; and how many numbers were compared.

    Args:
        built: folder of HTML pages.

    Raises:
        RunError: there is no built book.
    """
    if not (built / "index.html").is_file():
        raise RunError(f"there is no built book in {built}: build it first (make book)")
    shown = shown_in(built)
    values = {page: _again(page) for page in {number.page for number in shown}}
    disagreeing = [problem for page in publish.pages() for problem in publish.problems(page)]
    disagreeing += [problem for number in shown if (problem := _problem(number, values[number.page]))]
    if all(number.is_source for number in shown):
        disagreeing.append(f"{built} shows no marked number at all: it was built by other code; build it again")
    of_claims, judged = claims.problems(built)
    return disagreeing + of_claims + _typed(), sum(not number.is_source for number in shown) + judged


def _again(page: str) -> dict[str, glue.Value] | str:
    """The values of a page's run, from its raw files; or why they cannot be had."""
    try:
        return provenance.values_from_raw(provenance.run_of(page))
    except RunError as error:
        return str(error)


def _problem(number: Shown, values: dict[str, glue.Value] | str) -> str | None:
    what = f"{number.file}: {number.text!r} ({number.field} of {number.page})"
    if isinstance(values, str):
        return f"{what} cannot be computed again: {values}"
    raw = provenance.run_of(number.page).raw
    is_its_raw = number.raw_sha256 == paths.sha256_file(raw)
    if number.is_source:
        source = provenance.certify_picture(number.page, number.field).source
        return None if number.text == source and is_its_raw else f"{what}: it was made of {source}"
    if number.field not in values:
        return f"{what}: the raw files give no such number"
    if (again := provenance.written(values[number.field], number.form)) != number.text:
        return f"{what}: the raw files give {again!r}"
    return None if is_its_raw else f"{what}: its certificate names another {raw.name} than {raw}"


def _typed() -> list[str]:
    """Numbers in the chapters that were typed."""
    book = provenance.book_root()
    chapters = [file for file in sorted(book.rglob("*.md")) if "_build" not in file.parts]
    return [
        f"{file.relative_to(book)}: typed, not taken from a run: line {line}"
        for file in chapters
        for line in typed_results(file.read_text(encoding="utf-8"))
    ]
