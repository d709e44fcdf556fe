"""The built book audited: every number that it shows is computed again from raw files, and none is typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from distilbench import paths
from distilbench.errors import RunError
from distilbench.publication import provenance, publish
from distilbench.publication.typed_numbers import typed_results
from distilbench.report import glue

#: In the TeX of the PDF: \dbnumber{text}{page::field::form}; % and _ cannot stand in it as they are.
IN_TEX = re.compile(r"\\dbnumber\{(?P<text>(?:[^{}]|\{[^{}]*\})*)\}\{(?P<source>[^{}]*)\}")
TEX = {"\\sphinxhyphen{}": "-", "{}": ""} | {
    "\\%": "%",
    "\\_": "_",
    "\\&": "&",
    "\\#": "#",
    "\\$": "$",
    "\\textasciitilde": "~",
}


@dataclass(frozen=True)
class Shown:
    """A number as a built file shows it: where, what it says, and what it says it is.

    A caption names its run instead: it has `is_source`, and `field` is the label of its figure or table.
    """

    where: str
    text: str
    page: str
    field: str
    form: str
    raw_sha256: str | None = None
    is_source: bool = False


class _Numbers(HTMLParser):
    """Collects the marked numbers of a page, and the sources in its captions."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[dict[str, str], str]] = []
        self._open: dict[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {key: value or "" for key, value in attrs}
        if tag == "span" and {"db-number", "db-source"} & set(told.get("class", "").split()):
            self._open = told
            self.found.append((told, ""))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            told, text = self.found[-1]
            self.found[-1] = (told, text + data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._open = None


def shown_in_html(folder: Path) -> list[Shown]:
    """Every marked number of the built pages, and every source in a caption."""
    found = []
    for file in sorted(folder.rglob("*.html")):
        parser = _Numbers()
        parser.feed(file.read_text(encoding="utf-8"))
        for told, text in parser.found:
            source = (told["data-page"], told["data-field"], told.get("data-form", ""), told["data-raw"])
            found.append(Shown(str(file.relative_to(folder)), text, *source, "data-form" not in told))
    return found


def shown_in_tex(folder: Path) -> list[Shown]:
    """Every marked number of the TeX that the PDF was made of."""
    found = []
    for file in sorted(folder.glob("*.tex")):
        for matched in IN_TEX.finditer(file.read_text(encoding="utf-8")):
            page, field, form = matched["source"].replace("(percent)", "%").split("::")
            found.append(Shown(file.name, _plain(matched["text"]), page, field, form))
    return found


def _plain(text: str) -> str:
    for tex, plain in TEX.items():
        text = text.replace(tex, plain)
    return text  # blanks and all: a mark such as " (unstable)" begins with one


def problems(built: Path, tex: Path | None = None) -> tuple[list[str], int]:
    """What the built book shows otherwise than the raw files say; and how many numbers were compared.

    Args:
        built: folder of HTML pages.
        tex: folder of the PDF's TeX; None or not there: no PDF was built.

    Raises:
        RunError: there is no built book.
    """
    if not (built / "index.html").is_file():
        raise RunError(f"there is no built book in {built}: build it first (make book)")
    shown = shown_in_html(built) + (shown_in_tex(tex) if tex and tex.is_dir() else [])
    found = [problem for page in publish.pages() for problem in publish.problems(page)]
    values: dict[str, dict[str, glue.Value] | str] = {}
    for number in shown:
        if number.page not in values:
            values[number.page] = _again(number.page)
        if problem := _problem(number, values[number.page]):
            found.append(problem)
    if all(number.is_source for number in shown):
        found.append(f"{built} shows no marked number at all: it was built by other code; build it again")
    return found + _typed(), sum(not number.is_source for number in shown)


def _again(page: str) -> dict[str, glue.Value] | str:
    """The values of a page's run, from its raw files; or why they cannot be had."""
    try:
        return provenance.values_from_raw(provenance.run_of(page))
    except RunError as error:
        return str(error)


def _problem(number: Shown, values: dict[str, glue.Value] | str) -> str | None:
    what = f"{number.where}: {number.text!r} ({number.field} of {number.page})"
    if isinstance(values, str):
        return f"{what} cannot be computed again: {values}"
    if number.is_source:
        told = provenance.certify_picture(number.page, number.field)
        if (number.text, number.raw_sha256) != (told.source, paths.sha256_file(provenance.run_of(number.page).raw)):
            return f"{what}: it was made of {told.source}"
        return None
    if number.field not in values:
        return f"{what}: the raw files give no such number"
    again = provenance.written(values[number.field], number.form)
    if again != number.text:
        return f"{what}: the raw files give {again!r}"
    raw = provenance.run_of(number.page).raw
    if number.raw_sha256 is not None and number.raw_sha256 != paths.sha256_file(raw):
        return f"{what}: its certificate names another {raw.name} than {raw}"
    return None


def _typed() -> list[str]:
    """Numbers in the chapters that were typed."""
    book = provenance.book_root()
    chapters = [file for file in sorted(book.rglob("*.md")) if "_build" not in file.parts]
    return [
        f"{file.relative_to(book)}: typed, not taken from a run: line {line}"
        for file in chapters
        for line in typed_results(file.read_text(encoding="utf-8"))
    ]
