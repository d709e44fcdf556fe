"""What `verify` does for every kind of measurement, whatever the kind computes again; of a sweep: test_summary."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilbench import paths
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.runs import measurement, verify
from distilbench.runs.folder import Run


@pytest.fixture
def careless(finished_run, monkeypatch) -> Run:
    """A run of a kind that reads none of its records' files."""
    kind = replace(SWEEP, recompute=lambda *_: [], summarise=lambda _: {"schema_version": 1, "cells": 2})
    monkeypatch.setattr(measurement, "of", lambda _: kind)
    paths.write_json(finished_run.folder / "summary.json", kind.summarise(finished_run.folder))
    assert verify.problems(finished_run.folder) == []
    return finished_run


def test_files_are_compared_with_their_records_though_the_kind_does_not(careless):
    changed, gone = sorted((careless.folder / "iterations").iterdir())[:2]
    changed.write_bytes(changed.read_bytes() + b"x")
    gone.unlink()
    problems = verify.problems(careless.folder)
    assert len(problems) == 2
    assert any(f"{changed.name} is not the committed file" in problem for problem in problems)
    assert f"{gone} is missing" in problems


def test_what_the_kind_finds_is_said_and_a_run_without_a_summary_is_unfinished(careless, monkeypatch):
    kind = replace(measurement.of({}), recompute=lambda folder, records: [f"{len(records)} records of {folder.name}"])
    monkeypatch.setattr(measurement, "of", lambda _: kind)
    (careless.folder / "summary.json").unlink()
    records = len(careless.repetitions())
    assert verify.problems(careless.folder) == [
        f"{records} records of {careless.run_id}",
        f"{careless.folder / 'summary.json'} is missing: the run is unfinished",
    ]
