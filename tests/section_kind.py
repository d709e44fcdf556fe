"""A kind of measurement that measures nothing real, in no process: for what general code does with any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from distilbench import paths
from distilbench.harness.steps import in_rounds
from distilbench.runs import measurement
from distilbench.runs.measurement import Measurement
from distilbench.runs.parameters import Count, StudyParams
from distilbench.runs.rawfiles import read_raw
from distilbench.runs.records import Cell, Record

MODULE = f"{measurement.KINDS}.toy.kind"  # where it is looked for; put this module there


class ToyParams(StudyParams):
    study: str = "toy"
    device: Literal["cpu"] = "cpu"
    num_threads: int = 0
    repetitions: Count = 2
    weight: float = 1.0


class ToyRecord(Record):
    toy_ms: float | None = None


def cells(params: ToyParams) -> list[Cell]:
    return [Cell(cell="one"), Cell(cell="two")]


def summarise(folder: Path) -> dict[str, Any]:
    config = paths.read_json(folder / "config.json")
    records = read_raw(folder / "toy.jsonl", ToyRecord)[0]
    found = []
    for cell in config["cells"]:
        times = [record.toy_ms for record in records if record.cell == cell["cell"]]
        state = "ok" if len(times) == config["parameters"]["repetitions"] else "pending"
        found.append(cell | {"state": state, "toy_ms": max(times, default=None)})
    return {"schema_version": 1, "run_id": config["run_id"], "profile": "ci", "note": None, "cells": found}


def take(run: Any, resolved: Any, prepared: Any) -> Any:
    """How this module measures: the weight, times the number of the repetition."""

    def step(cell: Cell, pass_name: str, repetition: int, attempt: int) -> ToyRecord:
        params = resolved.params
        return ToyRecord(
            **cell.model_dump(), **{"pass": pass_name}, study=params.study, repetition=repetition, attempt=attempt,
            status="ok", started="2026-11-22T14:15:00Z", seconds=0.1, toy_ms=params.weight * (repetition + 1),
        )  # fmt: skip

    return step


MEASUREMENT = Measurement(
    name="toy",
    params=ToyParams,
    raw="toy.jsonl",
    record=ToyRecord,
    cells=cells,
    plan=in_rounds(cells),
    summarise=summarise,
    recompute=lambda folder, records: [],
    show="distilbench.report.defaults",
    comparable={"toy_ms": "timing"},
    measure=__name__,
)
