"""What the independent processes of a cell say of one number: what verdicts over a run rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from distilbench.runs.folder import Run

NAMES = ("cell", "control_of")  # of a cell: what it is called, not what it is


@dataclass(frozen=True)
class Readings:
    """One number of one cell.

    Attributes:
        name: the cell's.
        cell: its fields, such as batch_size, without its names.
        state: its state; an unstable one has numbers that are to be doubted.
        by_round: per repetition the number, in the unit that its name ends in. Cells of a run are measured round by
            round, so equal repetitions of two cells stood side by side.
        left_out: how many processes are not counted, since their proof says something else than was asked for.
        counted: of a share that every process gives alike: how many of how many; its interval is Wilson's.
    """

    name: str
    cell: dict[str, Any]
    state: str
    by_round: dict[int, float] = field(default_factory=dict)
    left_out: int = 0
    counted: tuple[int, int] | None = None


def of_records(run: Run, number: str, proof: Mapping[str, Any]) -> list[Readings]:
    """The number of each cell, as the committed records of its processes have it; cells without it are left out.

    Args:
        run: a run of any kind.
        number: a field of its records.
        proof: what a record's proof must say (`agrees`).
    """
    values: dict[str, dict[int, float]] = {}
    left_out: dict[str, int] = {}
    for record in run.measured():
        if record.control_of or (value := getattr(record, number, None)) is None:
            continue
        mine = values.setdefault(record.cell, {})
        if agrees(record.proof, proof):
            mine[record.repetition] = value
        else:
            left_out[record.cell] = left_out.get(record.cell, 0) + 1
    states = run.status["cells"]
    cells = {cell["cell"]: cell for cell in run.config["cells"] if cell["cell"] in values}
    return [
        Readings(
            name,
            {key: value for key, value in cell.items() if key not in NAMES},
            states.get(name, ""),
            values[name],
            left_out.get(name, 0),
        )
        for name, cell in cells.items()
    ]


def agrees(fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether each wanted field is there and is one of its values; text may have `*` for any characters."""
    return all(
        key in fields and any(_is(fields[key], value) for value in (asked if isinstance(asked, list) else [asked]))
        for key, asked in wanted.items()
    )


def _is(found: Any, asked: Any) -> bool:
    return fnmatchcase(found, asked) if isinstance(found, str) and isinstance(asked, str) else found == asked
