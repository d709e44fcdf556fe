"""Doubts by cause, worst first: which cells a reader must be careful with, and what that means for their numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

NAMED = 4  # cells that a line names
LINES = 16  # causes that a terminal shows
NUMBER = re.compile(r"(?<![\w.-])(\d[\d,]*(?:\.\d+)?%?)")  # not that of a name, such as fixed-32


@dataclass(frozen=True)
class Doubt:
    """One cause.

    Attributes:
        cause: in a few words.
        meaning: what it means for the numbers; "" where the cause says it all.
        cells: the names of the cells that have it, those of a curve one after the other; none: it is of the whole run.
        of: how many cells the run has.
    """

    cause: str
    meaning: str = ""
    cells: tuple[str, ...] = ()
    of: int = 0

    @property
    def count(self) -> str:
        """How many cells have it."""
        if not self.cells:
            return "the whole run"
        if len(self.cells) == self.of:
            return f"all {self.of} cells" if self.of > 1 else "the only cell"
        return f"{len(self.cells)} of {self.of} cells"

    def named(self, most: int | None = None) -> str:
        """Its cells by name, at most so many; what the names of a curve share is said once: `fixed-32 b1, b2`."""
        shown = [cell.rpartition(" ") for cell in self.cells[:most]]
        curves = {curve: [last for of, _, last in shown if of == curve] for curve, _, _ in shown}
        more = len(self.cells) - len(shown)
        names = "; ".join(f"{curve} {', '.join(lasts)}".strip() for curve, lasts in curves.items())
        return names + (f" and {more} more" if more else "")

    def __str__(self) -> str:
        """A line for a terminal."""
        if not self.cells:
            return f"{self.cause}: {self.meaning}" if self.meaning else self.cause
        return f"{self.count}: {self.cause}" + (f": {self.named(NAMED)}" if len(self.cells) < self.of else "")


def in_one(texts: list[str]) -> str:
    """Texts that differ in their numbers only, as one: each number from the lowest to the highest."""
    columns = zip(*map(NUMBER.findall, texts), strict=True)
    spans = (dict.fromkeys((min(column, key=_value), max(column, key=_value))) for column in columns)
    between = NUMBER.sub("\0", texts[0]).split("\0")
    return between[0] + "".join(f"{' to '.join(span)}{text}" for span, text in zip(spans, between[1:], strict=True))


def _value(number: str) -> float:
    return float(number.replace(",", "").removesuffix("%"))


def lines(found: list[Doubt], command: str) -> list[str]:
    """At most one screen of them, and the command that prints all doubts in full."""
    if not found:
        return ["- no doubts were recorded"]
    left = len(found) - LINES
    more = [f"- {left} more cause{'s' if left > 1 else ''}"] if left > 0 else []
    return [*(f"- {doubt}" for doubt in found[:LINES]), *more, f"Each cell by itself: {command}"]


def table(found: dict[str, list[Doubt]]) -> pd.DataFrame:
    """For a page: one row per cause, with all its cells.

    Args:
        found: by run, as it is called where there are several.
    """
    rows = [
        {"run": name, "cause": doubt.cause, "cells": _cells(doubt), "what it means": doubt.meaning or "–"}
        for name, of_run in found.items()
        for doubt in of_run or [Doubt("no doubts were recorded")]
    ]
    shown = pd.DataFrame(rows)
    return shown if len(found) > 1 else shown.drop(columns="run")


def _cells(doubt: Doubt) -> str:
    return f"{doubt.count}: {doubt.named()}" if 0 < len(doubt.cells) < doubt.of else doubt.count
