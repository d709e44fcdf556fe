"""Labels of sentences and of models, whatever their source: names; of numbers only 0 and 1 are given a meaning."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilbench.errors import DataError
from distilbench.sources.rows import unusable

SST2 = ("negative", "positive")  # what 0 and 1 mean
SHOWN = 8  # of the labels that an error names
MAPPINGS = "label_mappings.json"  # what a run writes, and what names the classes of a checkpoint that does not


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


# ------------------------------------------------------------------ of a model


def class_names(id2label: Any) -> tuple[str, ...] | None:
    """The class that each logit stands for; None where a number from 0 on has no name.

    Args:
        id2label: names by number, as config.json has them; there the numbers are text.
    """
    if not isinstance(id2label, dict) or not id2label:
        return None
    by_number = {str(number): name for number, name in id2label.items()}
    names = [by_number.get(str(number)) for number in range(len(by_number))]
    return tuple(names) if all(isinstance(name, str) and name.strip() for name in names) else None


def unnamed(names: Iterable[str]) -> bool:
    """Whether these are no names, but what transformers writes where nobody named the classes."""
    return all(re.fullmatch(r"label_\d+", name.strip().casefold()) for name in names)


def names_beside(folder: Path) -> tuple[str, ...] | None:
    """The names in a checkpoint's label_mappings.json; None where there is no such file.

    Raises:
        DataError: it is there, and does not name each class from 0 on.
    """
    file = folder / MAPPINGS
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        names = class_names(told["id2label"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    if not names:
        raise DataError(f"{file}: id2label must name the classes from 0 on; it is {str(told['id2label'])[:200]}")
    return names


def mappings(
    model_names: Sequence[str] | None, data_names: Sequence[str], numbers: Mapping[str, str]
) -> dict[str, Any]:
    """What label_mappings.json of a run holds: which class of the model is which label of the text, by name.

    Args:
        model_names: in the order of the logits, one for each of `data_names`, whatever the case; None: random weights,
            whose logits stand for nothing.
        data_names: in the order of the text's indices.
        numbers: by name of the text, the number that the data set itself gives it; it is never used.
    """
    place = {name.strip().casefold(): index for index, name in enumerate(model_names or ())}
    return {
        "schema_version": 1,
        "id2label": None if model_names is None else {str(i): name for i, name in enumerate(model_names)},
        "label2id": None if model_names is None else {name: i for i, name in enumerate(model_names)},
        "labels": [
            {"label": name, "index": i, "model_class": place.get(name.strip().casefold()), "number": numbers.get(name)}
            for i, name in enumerate(data_names)
        ],
        "reason": "random weights: their logits stand for nothing" if model_names is None else None,
    }


# ------------------------------------------------------------------ reading


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
