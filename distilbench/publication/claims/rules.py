"""From a run to numbers: what each rule makes of the readings of its cells, round by round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distilbench.errors import RunError
from distilbench.publication.claims.model import AgainstLine, Expected, Ratio, Reading, Value
from distilbench.report.readings import Readings, agrees
from distilbench.runs.folder import Run
from distilbench.stats import t_interval, wilson_interval

Verdict = Literal["REPRODUCED", "NOT REPRODUCED", "AMBIGUOUS", "CANNOT BE TESTED HERE"]


@dataclass(frozen=True)
class Quantity:
    """What a rule makes of one set of cells.

    Attributes:
        cells: what they have in common, in words.
        values: one per round (a process, or processes side by side); above 0.
        counted: of a share that every process gives alike: how many of how many.
        unstable: a cell of it had not settled when its warm-up was cut off.
    """

    cells: str
    values: tuple[float, ...]
    counted: tuple[int, int] | None = None
    unstable: bool = False

    @property
    def value(self) -> float:
        """The share, or the geometric mean over rounds."""
        return self.counted[0] / self.counted[1] if self.counted else math.exp(float(np.mean(np.log(self.values))))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Student's t over rounds, on logarithms; of a share Wilson's. None: too few rounds."""
        if self.counted:
            from scipy.special import ndtri

            return wilson_interval(*self.counted, z=float(ndtri(0.5 + confidence / 2)))
        found = t_interval([math.log(value) for value in self.values], confidence)
        return found and (math.exp(found[0]), math.exp(found[1]))


def judged(interval: tuple[float, float] | None, expected: Expected) -> tuple[Verdict, str]:
    """The verdict on an interval, and on which side of the claim one lies that contradicts it.

    REPRODUCED where the whole interval is within what the claim says, NOT REPRODUCED where it is wholly outside.
    """
    if interval is None:
        return "AMBIGUOUS", ""
    (low, high), (least, most) = interval, expected.bounds
    if least <= low and high <= most:
        return "REPRODUCED", ""
    if high < least or low > most:
        return "NOT REPRODUCED", "less than claimed" if high < least else "more than claimed"
    return "AMBIGUOUS", ""


def quantities(rule: Value | Ratio | AgainstLine, run: Run) -> list[Quantity]:
    """What the rule makes of a run: one quantity for each set of its cells that differ in nothing but what it names.

    Raises:
        RunError: the run has no such cells, or no process with the proof that is asked for; the message says which.
    """
    varied = set() if isinstance(rule, Value) else set(rule.of.where)
    of_run = varied | run.config["parameters"].keys()  # what all its cells have, such as the device
    sides = [_by_rest(_read(run, reading, rule), varied) for reading in rule.readings()]
    shared = [rest for rest in sides[0] if all(rest in side for side in sides)]
    found = [_quantity(rule, _shown(sides[0][rest][0], of_run), [side[rest] for side in sides]) for rest in shared]
    if not (whole := [quantity for quantity in found if quantity]):
        names = " and ".join(sorted(name.replace("_", " ") for name in varied))
        raise RunError(f"it has no cells that differ in {names} alone, measured side by side")
    return whole


def _read(run: Run, reading: Reading, rule: Value | Ratio | AgainstLine) -> list[Readings]:
    """The readings of the cells that are meant, from the processes that count."""
    every = run.kind.showing.readings(run, reading.number, reading.proof)
    mine = [one for one in every if agrees(one.cell, rule.cells) and agrees(one.cell, reading.where)]
    if not mine:
        raise RunError(f"it has no {reading.number} of cells with {in_words(rule.cells | reading.where)}")
    if not (counting := [one for one in mine if one.by_round]):
        left_out = sum(one.left_out for one in mine)
        raise RunError(
            f"none of its {left_out} processes with {in_words(reading.where)} has the proof {in_words(reading.proof)}"
        )
    return counting


def _by_rest(readings: list[Readings], varied: set[str]) -> dict[tuple, list[Readings]]:
    """Readings by what their cells are besides what a rule varies."""
    found: dict[tuple, list[Readings]] = {}
    for one in readings:
        rest = tuple((key, value) for key, value in one.cell.items() if key not in varied)
        found.setdefault(rest, []).append(one)
    return found


def _shown(one: Readings, left_out: set[str]) -> str:
    """A cell in words."""
    told = {key: value for key, value in one.cell.items() if key not in left_out}
    words = (value if isinstance(value, str) else f"{key.replace('_', ' ')} {value}" for key, value in told.items())
    return ", ".join(words) or one.name


def _quantity(rule: Value | Ratio | AgainstLine, cells: str, sides: list[list[Readings]]) -> Quantity | None:
    """One set of cells; None where a cell of the line is missing, or no round has all of them."""
    every = [one for side in sides for one in side]
    if isinstance(rule, AgainstLine) and len(sides[1]) < len(rule.through):
        return None
    rounds = sorted(set.intersection(*(set(one.by_round) for one in every)))
    values = tuple(_value(rule, sides, number) for number in rounds)
    if not values:
        return None
    if min(values) <= 0:
        raise RunError(f"its {rule.of.number} of {cells} is {min(values):g}: a claim needs numbers above 0")
    counted = every[0].counted if isinstance(rule, Value) else None
    return Quantity(cells, values, counted, any(one.state == "unstable" for one in every))


def _value(rule: Value | Ratio | AgainstLine, sides: list[list[Readings]], number: int) -> float:
    measured = sides[0][0].by_round[number]
    if isinstance(rule, Value):
        return measured
    if isinstance(rule, Ratio):
        return measured / sides[1][0].by_round[number]
    along = np.array([one.cell[rule.along] for one in sides[1]], dtype=float)
    others = np.array([one.by_round[number] for one in sides[1]])
    slope, offset = np.polyfit(along, others, 1, w=1 / others)  # relative residuals: small cells count as large ones do
    return float(slope * rule.of.where[rule.along] + offset) / measured


def in_words(fields: dict[str, Any]) -> str:
    """Wanted fields for people: `variant autocast, batch size 4`."""
    alternatives = {key: value if isinstance(value, list) else [value] for key, value in fields.items()}
    return ", ".join(f"{key.replace('_', ' ')} {' or '.join(map(str, of))}" for key, of in alternatives.items())
