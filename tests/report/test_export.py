"""Runs for papers and spreadsheets: the same numbers in three formats, and a sentence that says what they are."""

from __future__ import annotations

import csv
import io
import re

from distilbench import paths
from distilbench.report import export, load


def test_the_citation_names_hardware_versions_n_and_run(make_run):
    run = make_run(profile="full", repetitions=5)
    env = paths.read_json(run.folder / "env.json")
    said = export.citation(run)
    for part in (
        "imagined, 1,234,567 parameters, float32 (embedded)",
        f"on {load.label(run)}; ",
        f"torch {env['packages']['torch']}",
        f"transformers {env['packages']['transformers']}",
        "n = 5 fresh processes per cell",
        f"distilbench {env['packages']['distilbench']}",
        f"run {run.run_id}.",
        run.config["created"][:10],
    ):
        assert part in said
    assert "profile" not in said


def test_a_run_that_is_not_for_citation_says_so(finished_run):
    assert "(profile ci: tiny random models" in export.citation(finished_run)


def test_markdown(finished_run):
    table, said, citation = export.markdown(finished_run).split("\n\n")
    assert said.startswith("Medians. From–to reaches from the lowest to the highest of 2 fresh processes per cell, ")
    assert table.splitlines()[2] == "| longest | 1 | 12.06 | 12.00–12.12 | 82.9 | 401 | 0.750 |"
    assert citation == export.citation(finished_run)


def test_csv_has_every_number_unrounded_with_range_and_n(finished_run):
    rows = list(csv.DictReader(io.StringIO(export.csv(finished_run))))
    cells = paths.read_json(finished_run.folder / "summary.json")["cells"]
    assert len(rows) == len(cells)
    for row, cell in zip(rows, cells, strict=True):
        assert row["run_id"] == finished_run.run_id
        assert int(row["batch_size"]) == cell["batch_size"]
        assert float(row["latency_ms"]) == cell["latency_ms"]
        assert [float(row["latency_ms_low"]), float(row["latency_ms_high"])] == cell["latency_ms_range"]
        assert int(float(row["latency_ms_n"])) == 2
        assert float(row["accuracy_wilson_95_low"]) == cell["accuracy_wilson_95"][0]
        assert row["energy_per_sample_J"] == "", "absent, not zero"


def test_latex_is_a_booktabs_table(finished_run):
    text = export.latex(finished_run)
    assert text.startswith(r"\begin{table}[htbp]")
    assert r"\toprule" in text
    assert r"longest & 1 & 12.06 & 12.00–12.12 & 82.9 & 401 & 0.750 \\" in text
    assert f"\\label{{tab:{finished_run.run_id}}}" in text
    cited = export.citation(finished_run)
    caption = re.search(r"\\caption\{(.*)\}\n", text)[1]
    assert caption.replace("\\", "").endswith(f", too few for an interval. Memory: 1 fresh process per cell. {cited}")
    assert not re.search(r"(?<!\\)[&%$#_]", caption)


def test_the_ends_in_the_csv_belong_to_the_number_beside_them(make_run):
    run = make_run(profile="full", repetitions=5)
    row = next(csv.DictReader(io.StringIO(export.csv(run))))
    cell = paths.read_json(run.folder / "summary.json")["cells"][0]
    assert [float(row["latency_ms_low"]), float(row["latency_ms_high"])] == cell["latency_ms_interval_of_median"]
    assert not [name for name in row if "interval_95" in name], "that one is of the mean"
