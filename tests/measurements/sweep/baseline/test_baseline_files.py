"""The files of a baseline: figures that one can follow, and what stands there where something was not measured."""

from __future__ import annotations

import csv
import struct
from types import SimpleNamespace

import pytest

from distilbench import paths
from distilbench.measurements.sweep.show.baseline import files, metrics, pictures, report

#: 12 ms for one sentence, 18 ms for four; the second of two repetitions takes 1 % longer.
CELLS = {"batch_sizes": [1, 4], "length_policies": ["fixed-16"], "samples_per_cycle": 32, "repetitions": 2}


@pytest.fixture
def run(make_run):
    return make_run(**CELLS)


def test_each_named_file_is_there_and_can_be_read(run, tmp_path):
    written = files.write(run, tmp_path / "out", [{"what": "speed", "quoted": "100 to 200", "measured": "–"}])
    assert [str(file.relative_to(tmp_path / "out")) for file in written] == [
        "baseline_metrics.json",
        "detailed_metrics.csv",
        "baseline_summary_report.txt",
        "plots/batch_size_comparison.png",
        "plots/metrics_heatmap.png",
    ]
    assert paths.read_json(written[0])["best_batch_size"] == 4
    assert [row["batch_size"] for row in csv.DictReader(written[1].open())] == ["1", "4"]
    assert "speed  100 to 200  –" in written[2].read_text()
    for file in written[3:]:
        width, height = struct.unpack(">II", file.read_bytes()[16:24])
        assert width > 800
        assert height > 400


def test_metrics_are_those_of_the_summary_with_units_and_ends(run):
    found = metrics.metrics(run)
    one, four = found["batch_sizes"]
    assert (one["latency_per_batch_ms"], one["latency_per_batch_ms_low"]) == (pytest.approx(12.06), 12.0)
    assert four["throughput_batches_per_s"] * 4 == four["throughput_samples_per_s"]
    assert four["throughput_samples_per_s"] == run.summary["cells"][1]["throughput_samples_per_s"]
    assert (one["peak_memory_MiB"], one["peak_memory_of"]) == (401.0, "resident memory of the process")
    assert one["energy_per_sample_J_reason"]
    assert found["model"]["parameters_M"] == 1.234567
    assert found["model"]["size_on_disk_MiB_reason"] == "random weights are in no file"
    assert found["profile"].startswith("ci: ")


def test_what_was_saved_has_its_size_on_disk(run):
    paths.write_json(run.folder / "model.json", run.model | {"disk_bytes": 2**21, "memory_bytes": 2**22})
    model = metrics.metrics(run)["model"]
    assert (model["size_on_disk_MiB"], model["size_in_memory_MiB"], model["size_on_disk_MiB_reason"]) == (2, 4, None)
    assert "2 MiB on disk, 4 MiB in memory" in report.text(run, metrics.metrics(run))


def test_efficiency_is_against_the_smallest_size_of_a_curve_and_not_at_longest(make_run):
    rows = pictures.rows(metrics.metrics(make_run(**CELLS | {"length_policies": ["fixed-16", "longest"]})))
    by_policy = {policy: of["efficiency"].tolist() for policy, of in rows.groupby("length_policy")}
    first, second = by_policy["fixed-16"]
    assert (first, second) == (1.0, pytest.approx(12 / 18, rel=0.01))
    assert rows.loc[rows["length_policy"] == "longest", "efficiency"].isna().all()


def test_panels_and_heatmap_hold_what_was_measured(run):
    found = metrics.metrics(run)
    for row in found["batch_sizes"]:
        row["peak_memory_MiB"] = None
    panels = pictures.comparison(found).to_dict()
    titles = [panel["title"] for row in panels["vconcat"] for panel in row["hconcat"]]
    assert titles == [title for _, title, _ in pictures.PANELS]
    assert "not measured" in str(panels["datasets"]), "the panel of memory says so"
    cells = [row for data in pictures.heatmap(found).to_dict()["datasets"].values() for row in data]
    by_metric = {row["metric"] for row in cells}
    assert "Peak memory (MiB)" not in by_metric
    latency = [row for row in cells if row["metric"] == "Latency of a batch (ms)"]
    assert [(row["normalised"], row["number"]) for row in latency] == [(0.0, "12.1"), (1.0, "18.1")]
    same = [
        row["normalised"]
        for row in pictures._normalised(pictures.rows(found).assign(x=5.0), "x", "x").to_dict("records")
    ]
    assert same == [0.5, 0.5]


# ------------------------------------------------------------------ the report


def test_the_report_answers_first_and_says_what_is_missing(run):
    text = report.text(run, metrics.metrics(run))
    said = " ".join(text.split())
    assert "fixed-16, sdpa, batch size 1: 12.06 ms a batch, 12.06 ms a sample" in text, "two processes: no interval"
    assert "\n4, of those measured: " in text
    assert "No profile was taken." in text
    assert "It was not evaluated on the whole data set." in text
    assert "At most 404 MiB at batch size 4 (resident memory of the process)" in said
    assert "No figures of others are on trial" in text
    assert "Nothing follows without a verdict" in text
    assert f"distilbench show {run.run_id} --doubts" in text


def test_a_cost_has_its_interval_where_there_are_enough_processes(run):
    cell = metrics.metrics(run)["batch_sizes"][0] | {"processes": 5}
    assert report._cost(cell).startswith("fixed-16, sdpa, batch size 1: 12.06 ms a batch (12 to 12.12), ")


def test_sections_answer_what_they_measured(run, monkeypatch):
    showing = SimpleNamespace(
        headline=lambda summary: "batch size 1 is overhead-bound.",
        sentences=lambda table: ["aten::mm takes most."],
        advice=lambda summary: ["A compiled model: at most 3 times as fast."],
        causes=lambda run, summary: [],
        numbers=lambda run: {"dispatch_share": 0.6},
    )
    kind = SimpleNamespace(name="profiling", showing=showing)
    section = SimpleNamespace(kind=kind, summary={}, sections=[], folder=run.folder / "profiling")
    monkeypatch.setattr(type(run), "sections", [section])
    monkeypatch.setattr(
        report.load, "table", lambda chosen, table=report.load.table: table([c for c in chosen if c is run])
    )
    found = metrics.metrics(run)
    assert found["sections"] == {"profiling": {"dispatch_share": 0.6}}
    monkeypatch.setattr(report.findings, "sentences", lambda table: [])
    text = report.text(run, found)
    assert "batch size 1 is overhead-bound.\naten::mm takes most." in text
    assert "A compiled model: at most 3 times as fast." in text
    assert "One batch size only" in text


def test_a_run_in_which_nothing_was_measured_has_a_report(run, tmp_path):
    summary = run.summary
    for cell in summary["cells"]:
        cell |= {"throughput_samples_per_s": None, "latency_ms": None, "state": "oom"}
    summary["best_throughput"] = None
    paths.write_json(run.folder / "summary.json", summary)
    written = files.write(run, tmp_path / "out")
    assert [file.suffix for file in written] == [".json", ".csv", ".txt"]
    assert written[2].read_text().count("Nothing was measured.") >= 2


def test_a_peak_that_was_not_measured_says_why(run):
    found = metrics.metrics(run)
    for row in found["batch_sizes"]:
        row |= {"peak_memory_MiB": None, "peak_memory_MiB_reason": "the memory pass was not asked for"}
    said = " ".join(report.text(run, found).split())
    assert "The peak was not measured: the memory pass was not asked for." in said
