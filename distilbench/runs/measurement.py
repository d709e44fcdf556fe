"""What the house asks of a kind of measurement; each is a folder below `distilbench.measurements`.

States, locks, resuming, attempts, shards, verification, citing, publishing and releasing are the house's; what is
measured, what follows from it and how it is shown are the kind's. General code gets a kind from a run, and names none.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilbench.errors import RunError
from distilbench.runs.parameters import PROFILES, Resolved, StudyParams
from distilbench.runs.records import Cell, Record

Step = tuple[Cell, str, int]  # cell, pass, number of the repetition
KINDS = "distilbench.measurements"  # imported by name: it is above
NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True)
class Functions:
    """The functions of a module of a kind; those that it does not have are the house's. Both by dotted name."""

    own: str
    house: str

    def __getattr__(self, name: str) -> Any:
        own = importlib.import_module(self.own)
        return getattr(own, name) if hasattr(own, name) else getattr(importlib.import_module(self.house), name)


@dataclass(frozen=True)
class Measurement:
    """A kind of measurement.

    Attributes:
        name: that of its folder.
        params: its parameters; besides those of every study they have device, num_threads, heap, repetition_timeout_s.
        raw: name of the file of committed steps.
        record: model of a line of that file.
        cells: of the parameters, its points in reading order.
        plan: of a design, all steps in the order of measuring.
        summarise: of a run folder, its summary.json; a pure function of the other files there.
        recompute: of a run folder and its records, where what they derive differs from their files.
        show: dotted name of the module that shows; by name, since it needs pandas. What it does not have is as in
            `report.defaults`, which lists all that is asked for.
        comparable: the number that runs are compared by (less is better), with the pass that measures it. Its name
            ends in its unit.
        measure: dotted name of the module that measures; by name, since it may need torch. It has `prepare(params,
            run)`, `is_prepared(run)`, `load(run)`; `once(run, params)`: what is measured once a run; `take(run,
            resolved, prepared)`: gives what measures a step; `later(run, params)`, `count_later(params)`: steps that
            show when all others are done; `bring(run, new)`: what comes with records of shards. What it does not
            have is as in `harness.defaults`.
        folders: of a run folder, those whose files belong to a record each; others are orphans.
        inexact: paths of numbers in summary.json that another machine may round otherwise.
        for_jobs: a design as jobs of a batch system can measure it.
        refusals: why a run of these parameters is no result to publish.
        bulky: of a run's records, the names of files that a published copy need not have, and of those that it has
            packed; of the former it has the hashes. What must be recomputed everywhere is in neither.
        follow: of a section's parameters and its run, the parameters with what they take from what the run measured.
        slot: of a kind that tells of the instrument, not of a study: one is published per value of that config field.
    """

    name: str
    params: type[StudyParams]
    raw: str
    record: type[Record]
    cells: Callable[[Any], list[Cell]]
    plan: Callable[[Resolved], list[Step]]
    summarise: Callable[[Path], dict[str, Any]]
    recompute: Callable[[Path, list[Any]], list[str]]
    show: str
    comparable: dict[str, str]
    measure: str = "distilbench.harness.defaults"
    folders: tuple[str, ...] = ()
    inexact: re.Pattern[str] = NOTHING
    for_jobs: Callable[[Resolved], Resolved] = lambda resolved: resolved
    refusals: Callable[[dict[str, Any]], list[str]] = lambda _: []
    bulky: Callable[[list[Any]], tuple[list[str], list[str]]] = lambda _: ([], [])
    follow: Callable[[Resolved, Any], Resolved] = lambda resolved, _: resolved
    slot: str = ""

    @property
    def measuring(self) -> Functions:
        """How it measures."""
        return Functions(self.measure, "distilbench.harness.defaults")

    @property
    def showing(self) -> Functions:
        """How it is shown."""
        return Functions(self.show, "distilbench.report.defaults")


def summary_head(config: dict[str, Any], version: int) -> dict[str, Any]:
    """What every summary.json begins with: which run it is of, and what its profile is not good for.

    Args:
        config: of the run.
        version: of the kind's summary.
    """
    profile = config["parameters"]["profile"]
    return {
        "schema_version": version,
        "run_id": config["run_id"],
        "study": config["study"],
        "profile": profile,
        "design_hash": config["design_hash"],
        "note": PROFILES[profile] if profile != "full" else None,
    }


def named(name: str) -> Measurement:
    """The kind of that name.

    Raises:
        RunError: this version has none.
    """
    module = f"{KINDS}.{name}.kind"
    try:
        return importlib.import_module(module).MEASUREMENT
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or module):  # a library that the kind needs
            raise
        known = ", ".join(one.name for one in pkgutil.iter_modules([str(Path(__file__).parents[1] / "measurements")]))
        raise RunError(f"this version knows no kind of measurement {name!r}; it knows: {known}") from None


def of(config: dict[str, Any]) -> Measurement:
    """The kind of a run, from its config.json."""
    return named(config.get("kind") or importlib.import_module(KINDS).FIRST)
