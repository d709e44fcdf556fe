"""Checks a run: everything derived is computed again from its raw files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from distilbench.errors import DistilbenchError, RunError
from distilbench.runs.folder import Run
from distilbench.runs.measurement import NOTHING
from distilbench.runs.rawfiles import each_read_once, read_committed
from distilbench.runs.records import Record
from distilbench.runs.states import MEASURED

RELATIVE, ABSOLUTE = 1e-9, 1e-12  # a million times what rounding makes of these, and far below what a reader sees


def problems(folder: Path) -> list[str]:
    """Computes everything derived again from the raw files; says each difference (none: the run can be believed)."""
    try:
        runs = [Run(folder), *Run(folder).sections]
    except RunError as error:
        return [str(error)]
    return [
        f"{one.folder.name}: {problem}" if one.folder != folder else problem for one in runs for problem in _of(one)
    ]


def of_files(
    records: Iterable[Any], raw: str, fields: Callable[[Any], dict[str, Any]], inexact: re.Pattern[str]
) -> list[str]:
    """Where what records say differs from what their files say now: what a kind may recompute record by record.

    Args:
        records: of a run.
        raw: name of the file that they are lines of.
        fields: of a record, what follows from its files, by field.
        inexact: as of the kind.
    """
    found = []
    for record in records:
        if record.status not in MEASURED:
            continue
        where, said = f"{raw}, {record.cell} {record.repetition + 1}", record.model_dump()
        try:
            again = fields(record)
        except DistilbenchError as error:
            found.append(f"{where}: {error}")
            continue
        found += differences({name: said[name] for name in again}, again, where, inexact)
    return found


def _of(run: Run) -> list[str]:
    """Of a run without its sections."""
    folder, problems = run.folder, []
    try:
        if not run.raw.is_file():
            return [f"{run.raw} is missing: nothing can be computed again"]
        with each_read_once():  # by the records, and by the summary
            records = run.repetitions()
            if run.kind.folders:  # else its records have no files of their own
                problems += _not_as_committed(run, records)
            problems += run.kind.recompute(folder, records)
            again = run.kind.summarise(folder)
        if run.is_measured:
            recorded = run.summary
            problems += differences(recorded, _as_recorded(again, recorded), "summary.json", run.kind.inexact)
        else:
            problems.append(f"{folder / 'summary.json'} is missing: the run is unfinished")
    except RunError as error:
        problems.append(str(error))
    return list(dict.fromkeys(problems))  # a damaged file is met by the record and by the summary


def _not_as_committed(run: Run, records: list[Record]) -> list[str]:
    """The files of records that are missing, or have another hash than their record says."""
    found, left_out = [], run.left_out
    for name, sha256 in (file for record in records for file in record.files.items()):
        if left_out.get(name) == sha256:
            continue
        try:
            read_committed(run.folder / name, sha256)
        except RunError as error:
            found.append(str(error))
    return found


def _as_recorded(again: Any, recorded: Any) -> Any:
    """A summary as an earlier version would have made it: fields that came later are left out, in its own version."""
    if recorded.get("schema_version") == again["schema_version"]:
        return again
    return _only_known(again, recorded) | {"schema_version": recorded.get("schema_version")}


def _only_known(again: Any, recorded: Any, name: str = "") -> Any:
    """The fields that were recorded; a reason is words, and an earlier version may have said it in others."""
    if isinstance(again, dict) and isinstance(recorded, dict):
        return {key: _only_known(value, recorded[key], key) for key, value in again.items() if key in recorded}
    if isinstance(again, list) and isinstance(recorded, list) and len(again) == len(recorded):
        return [_only_known(*pair) for pair in zip(again, recorded, strict=True)]
    reworded = name.endswith("_reason") and isinstance(again, str) and isinstance(recorded, str)
    return recorded if reworded else again


def differences(recorded: Any, again: Any, where: str, inexact: re.Pattern[str] = NOTHING) -> list[str]:
    """Where two JSON values differ: path, what was recorded, what was computed again.

    Numbers that another machine may round otherwise (`inexact`: their paths) may differ by that much.
    """
    if recorded == again:
        return []
    if isinstance(recorded, dict) and isinstance(again, dict):
        keys = sorted(recorded.keys() | again.keys())
        return [d for key in keys for d in differences(recorded.get(key), again.get(key), f"{where}: {key}", inexact)]
    if isinstance(recorded, list) and isinstance(again, list) and len(recorded) == len(again):
        pairs = enumerate(zip(recorded, again, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{where}[{i}]", inexact)]
    may_round = isinstance(recorded, float) and isinstance(again, float) and inexact.search(where)
    if may_round and math.isclose(recorded, again, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return []
    return [f"{where} says {recorded!r}, computed again it is {again!r}"]
