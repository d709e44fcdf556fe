"""Checks a run: everything derived is computed again from its raw files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from distilbench import paths
from distilbench.errors import RunError
from distilbench.runs.folder import Run
from distilbench.runs.measurement import NOTHING
from distilbench.runs.rawfiles import read_raw

RELATIVE, ABSOLUTE = 1e-9, 1e-12  # a million times what rounding makes of these, and far below what a reader sees


def problems(folder: Path) -> list[str]:
    """Computes everything derived again from the raw files; says each difference (none: the run can be believed)."""
    found: list[str] = []
    run = Run(folder)
    try:
        if not run.raw.is_file():
            return [f"{run.raw} is missing: nothing can be computed again"]
        found += run.kind.recompute(folder, read_raw(run.raw, run.kind.record)[0])
        again = run.kind.summarise(folder)
        if (folder / "summary.json").is_file():
            told = paths.read_json(folder / "summary.json")
            found += differences(told, _as_told(again, told), "summary.json", run.kind.inexact)
        else:
            found.append(f"{folder / 'summary.json'} is missing: the run is unfinished")
    except RunError as error:
        found.append(str(error))
    return list(dict.fromkeys(found))  # a damaged file is met by the record and by the summary


def _as_told(again: Any, told: Any) -> Any:
    """A summary as an earlier version would have told it: fields that came later are left out, in its own version."""
    if told.get("schema_version") == again["schema_version"]:
        return again
    return _only_known(again, told) | {"schema_version": told.get("schema_version")}


def _only_known(again: Any, told: Any) -> Any:
    if isinstance(again, dict) and isinstance(told, dict):
        return {key: _known(key, value, told[key]) for key, value in again.items() if key in told}
    if isinstance(again, list) and isinstance(told, list) and len(again) == len(told):
        return [_only_known(*pair) for pair in zip(again, told, strict=True)]
    return again


def _known(key: str, again: Any, told: Any) -> Any:
    """As `_only_known`; a reason is words, and an earlier version may have said it in others."""
    reworded = key.endswith("_reason") and isinstance(again, str) and isinstance(told, str)
    return told if reworded else _only_known(again, told)


def differences(told: Any, again: Any, where: str, inexact: re.Pattern[str] = NOTHING) -> list[str]:
    """Where two JSON values differ: path, what was told, what was computed again.

    Numbers that another machine may round otherwise (`inexact`: their paths) may differ by that much.
    """
    if isinstance(told, dict) and isinstance(again, dict):
        keys = sorted(told.keys() | again.keys())
        return [d for key in keys for d in differences(told.get(key), again.get(key), f"{where}: {key}", inexact)]
    if isinstance(told, list) and isinstance(again, list) and len(told) == len(again):
        pairs = enumerate(zip(told, again, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{where}[{i}]", inexact)]
    if isinstance(told, float) and isinstance(again, float) and inexact.search(where):
        return [] if math.isclose(told, again, rel_tol=RELATIVE, abs_tol=ABSOLUTE) else [_differs(told, again, where)]
    return [] if told == again else [_differs(told, again, where)]


def _differs(told: Any, again: Any, where: str) -> str:
    return f"{where} says {told!r}, computed again it is {again!r}"
