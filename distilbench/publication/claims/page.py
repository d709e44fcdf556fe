"""The chapter "Claims on trial": its Markdown, what it marks as computed, and whether a built page holds."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from distilbench import paths
from distilbench.errors import DistilbenchError, ParameterError
from distilbench.publication import provenance, publish
from distilbench.publication.claims import model, trial
from distilbench.publication.claims.model import AgainstLine, Claim, Ratio
from distilbench.publication.claims.rules import in_words
from distilbench.publication.claims.trial import Outcome, Test
from distilbench.report import tables
from distilbench.runs import find

CHAPTER = "claims"  # its file below book/, without the suffix
MARKED = re.compile(r"<span ([^>]*\bdb-claim\b[^>]*)>([^<]*)</span>")
ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')


@dataclass(frozen=True)
class Finding(provenance.Certificate):
    """A verdict, or the numbers that it rests on, as shown; the runs of a verdict are several."""

    def __str__(self) -> str:
        return super().__str__() if self.run_id else f"{self.field}, of all tests below it"


def overview() -> str:
    """All claims with their verdicts, in a table; the label of the first section, which must stand before it."""
    rows = [
        [f"[{_unbroken(one.claim.claim)}](#claim-{one.claim.id})", f"{_mark(one.claim.id)}{_of_others(one)}"]
        for one in current()
    ]
    frame = pd.DataFrame(rows, columns=["Claim", "Verdict"])
    table = tables.Table(frame, "The claims, and what the published runs say of them", "tab-claims", True)
    return f"{_markdown(table)}\n\n{_label(current()[0])}"


def sections() -> str:
    """A section for each claim: how it is read, its tests, or what one would take."""
    outcomes = (
        current()
    )  # a label stands at the end of the section before its own: MyST appends sections to the chapter
    labels = [_label(one) for one in outcomes[1:]] + [""]
    return "\n\n".join(f"{_section(one)}\n\n{after}" for one, after in zip(outcomes, labels, strict=True))


def _label(one: Outcome) -> str:
    return f"(claim-{one.claim.id})="


def current() -> list[Outcome]:
    """The verdicts over what is published now."""
    return _judged(_stamp())[0]


def _stamp() -> tuple[tuple[str, int], ...]:
    files = [model.file(), *(run.raw for run in find.published_runs())]
    return tuple((str(file), file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=2)
def _judged(stamp: tuple[tuple[str, int], ...]) -> tuple[list[Outcome], dict[str, Finding]]:
    outcomes = trial.before(model.load(), find.published_runs())
    return outcomes, findings(outcomes)


def findings(outcomes: list[Outcome]) -> dict[str, Finding]:
    """By field all that the chapter marks as computed: verdicts, and per test its measured value and its verdict."""
    found: list[Finding] = []
    for one in outcomes:
        found.append(Finding(CHAPTER, one.claim.id, "", "", "", text=one.verdict))
        for number, test in enumerate(one.tests):
            raw = test.run.raw
            where = (test.run.run_id, raw.name, paths.sha256_file(raw))
            found.append(Finding(CHAPTER, f"{one.claim.id}.{number}.measured", *where, text=measured(test)))
            found.append(Finding(CHAPTER, f"{one.claim.id}.{number}.verdict", *where, text=test.verdict))
    return {one.field: one for one in found}


def finding(field: str) -> Finding:
    """What is computed under that name.

    Raises:
        ParameterError: there is no such claim or test.
    """
    if field not in (known := _judged(_stamp())[1]):
        raise ParameterError(f"there is no verdict {field!r}; there are: {', '.join(known)}")
    return known[field]


def problems(built: Path) -> tuple[list[str], int]:
    """What the built chapter says otherwise than the raw files, and how much was compared.

    Args:
        built: folder of HTML pages.
    """
    file = built / f"{CHAPTER}.html"
    if not file.is_file():
        return [f"{file} is missing: build the book again"], 0
    try:
        with ExitStack() as stack:
            runs = [stack.enter_context(provenance.from_raw(run)) for run in find.published_runs()]
            again = findings(trial.before(model.load(), runs))
    except DistilbenchError as error:
        return [f"{file.name}: the claims cannot be judged again: {error}"], 0
    shown = {}
    for attributes, text in MARKED.findall(file.read_text(encoding="utf-8")):
        mark = {name: html.unescape(value) for name, value in ATTRIBUTE.findall(attributes)}
        shown.setdefault(mark["data-field"], set()).add((html.unescape(text), mark["data-raw"]))
    wanted = {field: {(one.text, one.raw_sha256)} for field, one in again.items()}
    return [
        f"{file.name}: {field} says {_listed(shown, field)}, the raw files give {_listed(wanted, field)}"
        for field in sorted(shown.keys() | wanted.keys())
        if shown.get(field) != wanted.get(field)
    ], len(shown)


def _listed(of: dict[str, set[tuple[str, str]]], field: str) -> str:
    texts = (f"{text!r}{f' ({raw[:16]})' if raw else ''}" for text, raw in sorted(of.get(field, ())))
    return " and ".join(texts) or "nothing"


# ------------------------------------------------------------------ words


def measured(test: Test) -> str:
    """Value and interval of a test."""
    if test.low is None:
        return f"{_number(test.value)} (no interval)"
    return f"{_number(test.value)} ({_number(test.low)} to {_number(test.high)})"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def asked(claim: Claim) -> str:
    """What is measured, and what the claim expects of it, in a sentence."""
    rule, (name, unit) = claim.test, tables.split_unit(claim.test.of.number)
    number, at = name.replace("_", " "), in_words(rule.of.where)
    if isinstance(rule, Ratio):
        said, unit = f"{number} at {at} over that at {in_words(rule.to.where)}", ""
    elif isinstance(rule, AgainstLine):
        others = ", ".join(f"{one:g}" for one in rule.through)
        said, unit = f"{number} at {at}: what the line through {others} predicts, over what was measured", ""
    else:
        said = f"{number} at {at}"
    only = f" (cells with {in_words(rule.cells)})" if rule.cells else ""
    return f"{said}{only}; the claim expects {rule.expected}{f' {unit}' if unit else ''}."


def _section(one: Outcome) -> str:
    claim = one.claim
    parts = [f"## {_unbroken(claim.claim).rstrip('.')}"]
    parts += [f"**{_mark(claim.id)}**{_of_others(one)} ({_source(claim)})"]
    parts += [_unbroken(claim.reading)] if claim.reading else []
    parts += [f"Tested: {asked(claim)}"]
    parts += [_tests(one)] if one.tests else []
    parts += [_points(_beside(one))]
    if not one.tests:
        parts += [_points(one.reasons), f"What it would take: {one.takes}"]
    return "\n\n".join(part for part in parts if part)


def _of_others(one: Outcome) -> str:
    """What must stand beside the verdict itself, in a few words."""
    return ", by runs of another model or text" if one.of_others else ""


def _beside(one: Outcome) -> dict[str, list[str]]:
    """What must be said beside the verdict, with the runs that it is said of."""
    found: dict[str, list[str]] = {}
    for run_id, every in one.beside.items():
        for said in every:
            found.setdefault(said, []).append(run_id)
    return found


def _points(said: dict[str, list[str]]) -> str:
    runs = (", ".join(map(_link, ids)) for ids in said.values())
    return "\n".join(f"- {links}{': ' if links else ''}{what}." for what, links in zip(said, runs, strict=True))


def _tests(one: Outcome) -> str:
    rows = []
    for number, test in enumerate(one.tests):
        field = f"{one.claim.id}.{number}"
        verdict = ", ".join([_mark(f"{field}.verdict"), *test.notes])
        rows.append([_link(test.run.run_id), test.cells, str(test.n), _mark(f"{field}.measured"), verdict])
    frame = pd.DataFrame(rows, columns=["Run", "Cells", "n", "Measured, with interval", "Verdict"])
    return _markdown(tables.Table(frame, f"Tests of: {one.claim.claim}", f"tab-claim-{one.claim.id}", True))


def _link(run_id: str) -> str:
    """The page that shows a run; its id where none does."""
    pages = (page for page in publish.pages() if publish.page_metadata(page)["run_id"] == run_id)
    shown = (f"{{doc}}`{page.stem} </studies/{page.parent.name}/{page.stem}>`" for page in pages)
    return next(shown, f"`{run_id}`")


def _unbroken(text: str) -> str:
    """Text in which a line never ends between a number and its per cent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _mark(field: str) -> str:
    return f"{{verdict}}`{field}`"


def _source(claim: Claim) -> str:
    return claim.source if model.DOCUMENT.fullmatch(claim.source) else f"{{cite:t}}`{claim.source}`"


def _markdown(table: tables.Table) -> str:
    return table._repr_mimebundle_()["text/markdown"]


# ------------------------------------------------------------------ for a terminal


def lines(outcomes: list[Outcome]) -> Iterator[str]:
    """All verdicts in plain text."""
    for one in outcomes:
        yield f"{one.verdict}{_of_others(one)}: {one.claim.claim}"
        yield f"  claim {one.claim.id} of {one.claim.source}"
        yield f"  tested: {asked(one.claim)}"
        for test in one.tests:
            notes = f", {', '.join(test.notes)}" if test.notes else ""
            yield f"  {test.verdict}{notes}: {measured(test)}, n = {test.n}, {test.cells}, run {test.run.run_id}"
        told = _beside(one) if one.tests else one.reasons
        yield from (f"  {', '.join(ids)}{': ' if ids else ''}{said}" for said, ids in told.items())
        if not one.tests:
            yield f"  what it would take: {one.takes}"
        yield ""


def as_json(one: Outcome) -> dict[str, object]:
    """An outcome for programs."""
    tests = [
        {"run": test.run.run_id, "cells": test.cells, "n": test.n, "value": test.value, "low": test.low,
         "high": test.high, "verdict": test.verdict, "notes": list(test.notes)}
        for test in one.tests
    ]  # fmt: skip
    claim = {"id": one.claim.id, "claim": one.claim.claim, "source": one.claim.source, "study": one.claim.study}
    said = {"beside": one.beside, "reasons": one.reasons} | ({} if one.tests else {"takes": one.takes})
    return claim | {"verdict": one.verdict, "tests": tests} | said
