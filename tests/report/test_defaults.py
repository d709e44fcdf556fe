"""How a kind is shown that says nothing but its numbers."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from distilbench import paths
from distilbench.report import defaults, export, glue, insights, load, tables
from distilbench.runs.folder import Run

NOTHING = "distilbench.errors"  # a module that has none of the functions


@pytest.fixture
def plain(make_run, monkeypatch) -> Run:
    """A run of a kind that says nothing of how it is shown."""
    run = make_run()
    monkeypatch.setattr(run, "_kind", dataclasses.replace(run.kind, show=NOTHING))
    return run


@pytest.mark.parametrize(
    ("name", "shown", "unit"),
    [
        ("copy_ms", "copy (ms)", "ms"), ("bandwidth_GB_per_s", "bandwidth (GB/s)", "GB/s"),
        ("throughput_samples_per_s", "throughput (samples/s)", "samples/s"), ("size_MiB", "size (MiB)", "MiB"),
        ("energy_per_sample_J", "energy per sample (J)", "J"), ("repetitions", "repetitions", ""),
        ("batch_size", "batch size", ""), ("latency_ms_repetitions", "latency ms repetitions", ""),
    ],
)  # fmt: skip
def test_a_field_is_shown_with_the_unit_that_its_name_ends_in(name, shown, unit):
    assert tables.heading(name) == shown
    assert tables.split_unit(name)[1] == unit


def test_numbers_intervals_and_words_are_shown_and_what_is_missing_is_a_dash():
    table = pd.DataFrame([
        {"cell": "a", "state": "ok", "copy_ms": 1.23456, "interval_ms": [1.0, 2.0], "part": {"x": 1}, "n": 3},
        {"cell": "b", "state": "oom", "copy_ms": None, "interval_ms": None, "part": None, "n": 0},
    ])  # fmt: skip
    assert defaults.measured(table).to_dict("records") == [
        {"cell": "a", "copy (ms)": "1.235", "interval (ms)": "1 to 2", "n": "3", "state": "ok"},
        {"cell": "b", "copy (ms)": "–", "interval (ms)": "–", "n": "0", "state": "oom"},
    ]


def test_a_run_is_shown_exported_and_cited(plain):
    assert "latency (ms)" in insights.run_summary(
        plain, {"note": "", "profile": "ci"} | plain.kind.summarise(plain.folder)
    )
    assert export.csv(plain).startswith("run_id,machine,cell,")
    assert "latency (ms)" in export.markdown(plain)
    assert load.citation(plain).startswith("Study distilbert: what the study measures on ")
    assert glue.values(plain)["sdpa-float32-longest-b001-latency_ms"] > 0
    assert plain.kind.showing.page_name(plain) == "cpu"
    assert plain.kind.showing.headline(plain.kind.summarise(plain.folder)) == "2 of 2 cells were measured."
    what_its_profile_is_not_good_for, *of_cells = plain.kind.showing.limitations(plain)
    assert what_its_profile_is_not_good_for == plain.summary["note"]
    cells = plain.summary["cells"]
    assert of_cells == [f"{cell['cell']}: {doubt}" for cell in cells for doubt in cell["doubts"]] != []


def test_what_was_not_measured_has_no_named_number(plain):
    summary, name = plain.summary, "sdpa-float32-longest-b001-latency_ms"
    assert name in glue.values(plain)
    summary["cells"][0]["latency_ms"] = None
    paths.write_json(plain.folder / "summary.json", summary)
    assert name not in glue.values(plain)
    assert "sdpa-float32-longest-b004-latency_ms" in glue.values(plain)


def test_what_no_module_has_is_no_function(plain):
    assert getattr(plain.kind.showing, "capacity", None) is None
