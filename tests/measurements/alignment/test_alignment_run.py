"""Real timings of small products: what they leave, what follows from them, what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import decoding
import numpy as np
import pytest
import torch

from distilbench import paths, studies
from distilbench.errors import ImplausibleError, ParameterError
from distilbench.measurements.alignment import records
from distilbench.measurements.alignment.measure import run as measuring
from distilbench.measurements.alignment.measure import worker
from distilbench.measurements.alignment.show import entry, plots, tables
from distilbench.measurements.alignment.summary import derive, join
from distilbench.report import insights, load
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet, write_parquet

GIVEN = {
    "alignment_operations": ["down", "up", "attention"], "alignment_dimensions": [6, 8, 10, 16],
    "alignment_blocks": [8],
    "alignment_hidden": 24, "alignment_heads": 2, "alignment_repetitions": 2, "alignment_measured": 3,
}  # fmt: skip


@pytest.fixture(scope="session")
def timed(tmp_path_factory) -> Run:
    """All three operations at four dimensions."""
    return decoding.measured(tmp_path_factory.mktemp("timed"), "alignment", **GIVEN)


@pytest.fixture
def spoilt(timed, tmp_path) -> Run:
    return decoding.copy(timed, tmp_path)


# ------------------------------------------------------------------ what it leaves


def test_each_operation_was_timed_at_each_dimension(timed):
    assert [cell["cell"] for cell in timed.summary["cells"]] == ["down", "up", "attention"]
    assert len(timed.measured()) == 6
    rows = read_parquet(timed.folder / records.file_name("up", 1))
    assert len(rows) == 4 * (1 + 3)
    assert sum(row["warmup"] for row in rows) == 4
    rounds = [[row["dimension"] for row in rows if row["round"] == number] for number in range(4)]
    assert all(sorted(one) == [6, 8, 10, 16] for one in rounds), "each once a round"
    assert len({tuple(one) for one in rounds}) > 1, "in another order"
    other = [row["dimension"] for row in read_parquet(timed.folder / records.file_name("up", 0))]
    assert other != [row["dimension"] for row in rows], "another process, another order"


def test_the_committed_schema_is_that_of_the_record(timed):
    decoding.require_committed_schema(timed, "alignment", records.json_schema())


@torch.inference_mode()
def test_operations_have_the_shapes_that_are_said():
    protocol = {"seed": 1, "dtype": "float32", "heads": 3, "tokens": 5, "hidden": 7, "width": 11}
    shapes = {name: worker.operation(name, 4, protocol, torch.device("cpu"))().shape for name in ("down", "up")}
    assert shapes == {"down": (5, 4), "up": (5, 11)}
    assert worker.operation("attention", 4, protocol, torch.device("cpu"))().shape == (1, 3, 5, 4)
    params = {"tokens": 5, "hidden": 7, "width": 11, "heads": 3}
    assert join.operations_of("down", 4, params) == 2 * 5 * 7 * 4
    assert join.operations_of("up", 4, params) == 2 * 5 * 4 * 11
    assert join.operations_of("attention", 4, params) == 3 * (5 * 5 * 4 * 2 * 2) / 2, "q k and p v, half of it masked"


# ------------------------------------------------------------------ the numbers themselves


def row(dimension, ms, warmup=False, device=None):
    return {"round": 0, "warmup": warmup, "dimension": dimension, "latency_ms": ms, "latency_device_ms": device}


def test_medians_follow_from_rounds():
    rows = [row(8, 100.0, True), row(8, 3.0), row(8, 1.0), row(8, 2.0), row(6, 4.0)]
    found = derive.fields_of(rows)
    assert [(one["dimension"], one["n"], one["latency_ms"]) for one in found["times"]] == [(6, 1, 4.0), (8, 3, 2.0)]
    assert (found["mean_ms"], found["largest_over_smallest"]) == (3.0, 0.5)
    assert found["times"][0]["latency_device_ms"] is None
    on_gpu = derive.fields_of([row(6, 9.0, device=1.0), row(8, 9.0, device=1.5)])
    assert on_gpu["largest_over_smallest"] == 1.5, "between the device's events"
    for wrong in ([row(8, 1.0, True)], [row(8, 0.0)]):
        with pytest.raises(ImplausibleError, match="no operation was timed"):
            derive.fields_of(wrong)


def test_what_rounding_up_costs_and_gives():
    times = {size: np.array([ms] * 5) for size, ms in {6: 2.0, 8: 1.0, 10: 1.0, 12: 1.5, 16: 3.0}.items()}
    found = join._rounded(times, 8)
    assert [(one["dimension"], one["rounded_to"]) for one in found["pairs"]] == [(6, 8), (10, 16), (12, 16)]
    assert [one["time_ratio"] for one in found["pairs"]] == [0.5, 3.0, 2.0]
    assert found["memory_ratio"] == pytest.approx(8 / 6), "the median of 1.33, 1.6 and 1.33"
    assert (found["faster"], found["surely_faster"]) == (1, 1)
    assert found["pairs"][0]["time_ratio_95"] == pytest.approx([0.5, 0.5])
    nothing = join._rounded({8: np.array([1.0])}, 8)
    assert (nothing["pairs"], nothing["time_ratio"], nothing["faster"]) == ([], None, 0)


def test_times_on_a_gpu_are_those_between_its_events(timed):
    (first, *_) = timed.measured()
    moved = first.model_copy(deep=True)
    for one in moved.times:
        one.latency_device_ms = 7.0
    assert set(join.by_dimension([moved])) == {6, 8, 10, 16}
    assert all(list(times) == [7.0] for times in join.by_dimension([moved]).values())


# ------------------------------------------------------------------ verify, and what is shown


def test_a_section_verifies_and_a_changed_round_is_found(spoilt):
    assert verify.problems(spoilt.folder) == []
    name = records.file_name("up", 0)
    rows = read_parquet(spoilt.folder / name)
    for one in rows:
        one["latency_ms"] *= 2
    sha256 = write_parquet(spoilt.folder / name, rows, records.ITERATIONS)
    (record,) = [json.loads(line) for line in spoilt.raw.read_text().splitlines() if name in line]
    spoilt.raw.write_text(spoilt.raw.read_text().replace(record["files_sha256"][name], sha256))
    assert any("latency_ms says" in one for one in verify.problems(spoilt.folder))
    write_parquet(spoilt.folder / name, rows[:4], records.ITERATIONS)  # the warm-up alone
    assert any("no operation was timed" in one for one in verify.problems(spoilt.folder))


def test_what_is_shown(timed, tmp_path):
    text = insights.run_summary(timed, timed.summary)
    assert "to a latent: rounded up to multiples of 8, " in text
    table = load.table([timed])
    assert len(entry.measured(table)) == len(timed.kind.showing.cells(timed, timed.summary)) == 3
    assert len(entry.sentences(table)) == 3
    assert "of 2 cases the next multiple of 8" in entry.sentences(table)[0]
    (details,) = entry.details(table, "tab-x")
    assert (details.name, len(details.frame)) == ("tab-x-largest", 6)
    numbers = entry.numbers(timed)
    assert numbers["up-block8-dimensions"] == 2
    assert numbers["up-block8-d6-time_ratio"] == pytest.approx(
        np.median([b / a for a, b in zip(*(one for one in _medians(timed, "up", 6, 8)), strict=True)])
    )
    assert len(entry.frame(timed)) == 12
    assert entry.about(timed)["dimensions"] == "4, from 6 to 16"
    assert entry.subject(timed) == [f"operations: {timed.data['name']}"]
    assert "attention of 2 heads over 16 tokens" in entry.about(timed)["operations"]
    assert entry.reservation(timed.summary)
    assert entry.caption(table)
    assert {file.name for file in entry.save(timed, tmp_path)} == {"alignment.svg", "alignment.png"}
    assert entry.figure_caption(timed, "fig-alignment") == plots.CAPTION
    assert entry.figure_caption(timed, "fig-latency") is None
    assert timed.kind.showing.doubts(timed.summary) == []


def _medians(run, cell, *dimensions):
    own = [one for one in run.measured() if one.cell == cell]
    return [[at.latency_ms for one in own for at in one.times if at.dimension == size] for size in dimensions]


def test_what_is_missing_is_said(spoilt):
    config = paths.read_json(spoilt.folder / "config.json")
    config["parameters"]["profile"] = "full"
    paths.write_json(spoilt.folder / "config.json", config)
    lines = spoilt.raw.read_text().splitlines(keepends=True)
    spoilt.raw.write_text("".join(line for line in lines if json.loads(line)["cell"] != "down"))
    said = spoilt.kind.showing.doubts(join.summarise(spoilt.folder))
    assert "down: not measured (pending)" in said
    assert any("up: 2 processes: too few for intervals; 5 are needed" in one for one in said)
    spoilt.raw.write_text("")
    empty = join.summarise(spoilt.folder)
    paths.write_json(spoilt.folder / "summary.json", empty)
    assert entry.headline(empty) == "Nothing was measured."
    assert "why" in tables.rounding(empty["cells"])
    assert "why" in tables.largest(empty["cells"])
    assert "not measured" in plots.by_dimension(Run(spoilt.folder)).text


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alignment_blocks": [1, 8]}, "1 rounds nothing"),
        ({"alignment_dimensions": [1]}, "greater than or equal to 2"),
        ({"alignment_operations": ["sideways"]}, "'down', 'up' or 'attention'"),
    ],
)
def test_parameters_that_make_no_sense(given, said):
    with pytest.raises(ParameterError, match=said):
        studies.sections(studies.resolve("palu", {"profile": "ci"} | given))


def test_of_a_run_in_shards_what_was_prepared_is_taken(timed):
    assert measuring.is_prepared(timed)
    assert measuring.load(timed) == {"folder": str(timed.folder)}
    assert not measuring.is_prepared(Run(Path("/nowhere")))


def test_the_progress_says_what_was_timed(timed):
    (first, *_) = timed.measured()
    assert " ms at 6, " in first.in_words()
    failed = first.model_copy(update={"status": "failed", "error": "it broke"})
    assert failed.in_words().endswith("FAILED it broke")
