"""Labels of sentences, whatever their source: names, or the numbers 0 and 1; no other number is given a meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from distilbench.errors import DataError
from distilbench.sources.rows import unusable

SST2 = ("negative", "positive")  # what 0 and 1 mean
SHOWN = 8  # of the labels that an error names


def read_labels(
    values: Sequence[Any], what: str, places: Sequence[str], declared: Sequence[str] = ()
) -> tuple[list[int], tuple[str, ...]]:
    """Labels as indices into their names.

    Names are compared whatever their case and sorted; 0 and 1 are negative and positive, as in SST-2.

    Args:
        values: one label per sentence, as it was read: text, a number, true or false.
        what: what holds them, for errors.
        places: where each one stands, for errors, such as "line 3".
        declared: the names, in order, where the source has such a list; then `values` are indices into it, or, as
            text, these names or indices.

    Returns:
        (an index per sentence, the names).

    Raises:
        DataError: a label is missing, withheld (-1), neither a name nor 0 or 1, or without a name; or all names
            are the same.
    """
    if declared:
        values = [_name_of(value, what, place, declared) for value, place in zip(values, places, strict=True)]
    spelt = [_spelt(value, f"{what}, {place}") for value, place in zip(values, places, strict=True)]
    distinct = {name.strip().casefold() for name in declared} or set(spelt)
    numbers = {text for text in distinct if _is_number(text)}
    if numbers:
        _require_0_and_1(distinct, numbers, what, dict(zip(reversed(spelt), reversed(places), strict=True)))
        return [int(float(text)) for text in spelt], SST2
    names = tuple(declared) or tuple(sorted(distinct))
    _require_distinct(names, distinct, what)
    index = {name.strip().casefold(): i for i, name in enumerate(names)}
    return [index[text] for text in spelt], names


def read_label(value: Any, what: str, place: str, declared: Sequence[str] = ()) -> str:
    """The label of one row by name, whatever its case: for rows that are read one by one; arguments as `read_labels`.

    Raises:
        DataError: as `read_labels`, of this row alone.
    """
    text = _spelt(_name_of(value, what, place, declared) if declared else value, f"{what}, {place}")
    if not _is_number(text):
        return text
    if float(text) == -1:
        raise _withheld(what)
    if float(text) not in (0, 1):
        raise DataError(
            f"{what}, {place}: the label is {_cut(text)}: which class a number stands for is not guessed, but for 0 "
            "and 1; write the class's name"
        )
    return SST2[int(float(text))]


def _name_of(value: Any, what: str, place: str, declared: Sequence[str]) -> str | None:
    """The name that an index stands for; text may also be the name itself, which goes first."""
    if isinstance(value, str):
        if value.strip().casefold() in (name.strip().casefold() for name in declared):
            return value
        value = _number_in(value)
    if value == -1:
        raise _withheld(what)
    if value is not None and (not isinstance(value, int) or not 0 <= value < len(declared)):
        raise DataError(f"{what}, {place}: label {_cut(str(value))} has no name; declared are {_shown(declared)}")
    return None if value is None else declared[value]


def _number_in(text: str) -> int | str | None:
    """An index that a table holds as text, which has no types; None where it is empty; other text as it is."""
    text = text.strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text or None


def _spelt(value: Any, where: str) -> str:
    """A label as text: trimmed and whatever its case."""
    if not isinstance(value, str | int | float | None):
        raise DataError(f"{where}: a label must be a name, or 0 or 1, not {value!r:.60}")
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    text = "" if missing else str(value).strip().casefold()
    if not text:
        raise DataError(f"{where}: the label is empty")
    if why := unusable(text):
        raise DataError(f"{where}: the label cannot be used: {why}")
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _require_0_and_1(distinct: set[str], numbers: set[str], what: str, first: dict[str, str]) -> None:
    """Refuses other numbers, and numbers beside names; `first` says where each label stands first."""
    found = {float(text) for text in numbers}
    if distinct == numbers and -1 in found and found <= {-1, 0, 1}:
        raise _withheld(what)
    if distinct != numbers or not found <= {0, 1}:
        odd = sorted(numbers - {text for text in numbers if float(text) in (0, 1)} or numbers)
        place = next((f" ({_cut(text)} in {first[text]})" for text in odd if text in first), "")
        if named := sorted(distinct - numbers):
            place += f" beside the name {_cut(named[0])!r}"
        raise DataError(
            f"{what}: labels must be names, or 0 and 1; it has {_shown(sorted(numbers))}{place}. "
            "Which class a number stands for is not guessed: write the classes' names instead"
        )


def _require_distinct(names: Sequence[str], distinct: set[str], what: str) -> None:
    if len(distinct) < len(names):
        raise DataError(f"{what}: two of its labels have the same name: {_shown(names)}")
    if len(distinct) < 2:
        raise DataError(f"{what}: all labels are {names[0]!r}; a classifier needs at least two")


def _withheld(what: str) -> DataError:
    return DataError(f"{what}: its labels are withheld (-1), as of GLUE's test splits; use validation or train")


def _shown(labels: Iterable[str]) -> str:
    labels = list(labels)
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(map(_cut, labels[:SHOWN])) + more


def _cut(label: str) -> str:
    return label if len(label) <= 40 else f"{label[:40]}… ({len(label):,} characters)"
