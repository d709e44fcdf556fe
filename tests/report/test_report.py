"""Tables and run_summary.md: every number with its doubts, and what was not measured said with its reason."""

from __future__ import annotations

import copy
import json
import re

import pandas as pd
import pytest
import synthetic

from distilbench import paths, studies
from distilbench.measurements.sweep import params
from distilbench.measurements.sweep.show import cell_tables
from distilbench.measurements.sweep.summary import derive, join
from distilbench.measurements.sweep.summary.doubts import NOT_TESTED
from distilbench.report import insights, tables


@pytest.fixture
def derived(finished_run) -> dict:
    """The summary of a finished synthetic run, to be altered."""
    return copy.deepcopy(paths.read_json(finished_run.folder / "summary.json"))


# ------------------------------------------------------------------ parameters and mappings


def test_every_parameter_is_shown_with_origin_and_meaning():
    table = tables.parameters(studies.resolve("distilbert", {"profile": "ci", "seed": 3, "batch_sizes": "1,2"}))
    assert list(table.index) == list(params.DistilbertParams.model_fields)
    assert table.loc["seed"].tolist() == ["3", "given", "seeds sample order and random weights"]
    assert table.loc["batch_sizes", "value"] == "1, 2"
    assert table.loc["repetitions", "from"] == "params/distilbert/ci.yml"
    assert table.loc["device"].tolist()[:2] == ["cpu", "default"]
    assert table.loc["run_id", "value"] == "–", "an empty text is shown as nothing"
    assert not table.isna().any().any()


def test_some_parameters_only():
    resolved = studies.resolve("distilbert")
    assert list(tables.parameters(resolved, ["dtype", "seed"]).index) == ["dtype", "seed"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (0.0, "0"),
        (None, "–"),
        ("", "–"),
        ("text", "text"),
        ([1, 2], "1, 2"),
        (("a", "b"), "a, b"),
        (True, "True"),
        (False, "False"),
    ],
)
def test_values_are_written_for_people(value, text):
    assert tables.mapping({"some_name": value}).loc["some name", "value"] == text


def test_names_can_be_left_out():
    assert list(tables.mapping({"a_b": 1, "c": 2}, leave_out=["c"]).index) == ["a b"]


def test_rows_are_named_by_their_first_column():
    table = tables.frame([{"batch_size": 1, "padding": 0.0}, {"batch_size": 8, "padding": 0.5}])
    assert table.loc[8, "padding"] == 0.5


# ------------------------------------------------------------------ cells


def test_a_row_per_cell_with_numbers_as_text(derived):
    table = cell_tables.cells(derived)
    assert list(table.columns) == [
        "variant", "length", "batch size", "latency (ms)", "samples/s", "peak memory (MiB)", "accuracy", "state",
    ]  # fmt: skip
    assert table.values.tolist() == [
        ["sdpa", "longest", "1", "12.06", "82.9", "401", "0.750", "ok"],
        ["sdpa", "longest", "4", "18.09", "221.1", "404", "0.750", "ok"],
    ]


def test_what_was_not_measured_is_a_dash(derived):
    derived["cells"][0] |= {"latency_ms": None, "accuracy": None}
    table = cell_tables.cells(derived)
    assert table.loc[0, ["latency (ms)", "accuracy"]].tolist() == ["–", "–"]
    assert table.loc[1, "latency (ms)"] == "18.09"


def test_gpu_memory_has_a_column_where_there_is_any(derived):
    derived["cells"][1]["peak_cuda_allocated_MiB"] = 1234.5
    assert cell_tables.cells(derived)["peak GPU memory (MiB)"].tolist() == ["–", "1234"]


def test_nothing_measured_is_never_zero(this_machine):
    table = cell_tables.cells(join.summarise(synthetic.started_run().folder))
    assert table["state"].tolist() == ["pending", "pending"]
    assert set(table[["latency (ms)", "samples/s", "peak memory (MiB)", "accuracy"]].values.flat) == {"–"}


def test_markdown_is_a_pipe_table_with_numbers_to_the_right(derived):
    derived["cells"][0]["latency_ms"] = None
    lines = tables.markdown(cell_tables.cells(derived)).splitlines()
    assert (
        lines[0]
        == "| variant | length | batch size | latency (ms) | samples/s | peak memory (MiB) | accuracy | state |"
    )
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    assert lines[2] == "| sdpa | longest | 1 | – | 82.9 | 401 | 0.750 | ok |"
    assert len(lines) == 4


# ------------------------------------------------------------------ sentences


def test_the_headline_names_the_best_cell_and_the_profile(derived):
    assert cell_tables.headline(derived) == (
        "Highest throughput with padding to the longest of each batch: batch size 4 with 221.1 samples/s (sdpa); "
        "tiny random models and a handful of sentences, for tests; never published."
    )


def test_the_headline_of_a_full_run_needs_no_warning(derived):
    derived["profile"] = "full"
    derived["best_throughput"]["length_policy"] = "fixed-128"
    assert cell_tables.headline(derived) == (
        "Highest throughput at 128 tokens per sentence: batch size 4 with 221.1 samples/s (sdpa)."
    )


def test_the_headline_of_a_run_without_numbers(derived):
    derived["best_throughput"] = None
    assert cell_tables.headline(derived) == "Nothing was measured."


def test_what_no_cell_has_is_said_once_with_its_reason(derived):
    assert cell_tables.not_measured(derived) == [
        f"latency_device_ms: {derive.NO_DEVICE_CLOCK}",
        "peak_cuda_allocated_MiB: the model ran on the CPU",
        f"energy_J: {synthetic.NO_ENERGY}",
    ]


def test_the_same_reason_is_said_once_for_several_numbers(derived):
    for cell in derived["cells"]:
        cell |= {"accuracy": None, "accuracy_reason": synthetic.NO_ENERGY}
    assert cell_tables.not_measured(derived)[0] == f"accuracy, energy_J: {synthetic.NO_ENERGY}"


def test_what_one_cell_has_is_not_missing(derived):
    derived["cells"][1]["energy_J"] = 3.0
    assert not any("energy_J" in line for line in cell_tables.not_measured(derived))


def test_doubts_that_all_cells_share_are_said_once(derived):
    derived["cells"][1]["doubts"].append("repetitions differ by 25%")
    name = derived["cells"][1]["cell"]
    assert cell_tables.doubts(derived) == [
        "every cell: 2 repetitions: no interval",
        f"{name}: repetitions differ by 25%",
    ]


def test_a_doubt_of_every_cell_of_a_length_policy_is_said_once(derived):
    one, other = derived["cells"]
    cells = [
        one,
        other,
        one | {"cell": "c", "length_policy": "fixed-32"},
        other | {"cell": "d", "length_policy": "fixed-32"},
    ]
    for cell in cells[2:]:
        cell["doubts"] = [*cell["doubts"], "cut"]
    assert cell_tables.doubts({"cells": cells}) == ["every cell: 2 repetitions: no interval", "fixed-32: cut"]
    cells[3]["doubts"] = cells[0]["doubts"]
    assert cell_tables.doubts({"cells": cells})[1:] == ["c: cut"], "not of every cell any more"


def test_without_doubts_none_are_said(derived):
    for cell in derived["cells"]:
        cell["doubts"] = []
    assert cell_tables.doubts(derived) == []
    assert cell_tables.doubts({"cells": []}) == []


# ------------------------------------------------------------------ run_summary.md


def test_the_summary_for_people_says_it_all(finished_run, derived):
    text = insights.write(finished_run, derived)
    assert (finished_run.folder / "run_summary.md").read_text() == text
    config = finished_run.config
    assert text.startswith(f"# distilbert on cpu, {config['created'][:10]}\n")
    assert text.endswith("\n")
    for part in (
        "**Profile ci: tiny random models and a handful of sentences, for tests; never published.**",
        cell_tables.headline(derived),
        f"- run `{finished_run.run_id}`, design `{config['design_hash']}`",
        "- model: imagined (1,234,567 parameters, source embedded)",
        "- text: invented (32 sentences, source local)",
        tables.markdown(cell_tables.cells(derived)),
        "## What the run cannot say",
        f"- energy_J: {synthetic.NO_ENERGY}",
        "- every cell: 2 repetitions: no interval",
    ):
        assert part in text, part
    assert "\n\n\n" not in text
    assert not re.search(r"\bNone\b|\bnan\b|{{|}}|{%", text)


def test_a_table_stands_in_a_paragraph_of_its_own(finished_run, derived):
    lines = insights.run_summary(finished_run, derived).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| variant"))
    assert lines[first - 1] == ""
    assert lines[first + 4] == ""


def environment_says(run, change) -> str:
    env = paths.read_json(run.folder / "env.json")
    change(env)
    paths.write_json(run.folder / "env.json", env)
    return insights.run_summary(run, paths.read_json(run.folder / "summary.json"))


def test_the_code_of_a_run_is_named(finished_run):
    said = environment_says(finished_run, lambda env: env.update(git={"sha": "0123456789abcdef" * 2, "dirty": False}))
    assert "- code: 0123456789ab\n" in said
    said = environment_says(finished_run, lambda env: env["git"].update(dirty=True))
    assert "- code: 0123456789ab, with uncommitted changes\n" in said
    said = environment_says(finished_run, lambda env: env.update(git={"sha": None, "dirty": None}))
    assert "- code: not under git\n" in said


def test_the_gpu_that_measured_is_named_and_not_its_neighbours(finished_run):
    lines = [json.loads(line) for line in finished_run.raw.read_text().splitlines()]
    for line in lines:
        line["proof"] = {"gpu": "Two", "gpu_uuid": "GPU-2"}
    finished_run.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = environment_says(finished_run, lambda env: env.update(gpus=[{"name": "One"}, {"name": "Two"}]))
    assert re.search(r"usable cores, Two; torch ", said)


def test_a_full_run_without_doubts(finished_run, derived):
    derived["note"] = None
    for cell in derived["cells"]:
        cell |= {"doubts": [], "energy_J": 1.0, "latency_device_ms": 1.0, "peak_cuda_allocated_MiB": 1.0}
    text = insights.run_summary(finished_run, derived)
    assert "Profile" not in text
    assert text.endswith("## What the run cannot say\n\n- no doubts were recorded\n")


def test_a_value_that_the_files_lack_is_an_error_not_a_gap(finished_run, derived):
    model = paths.read_json(finished_run.folder / "model.json")
    del model["source"]
    paths.write_json(finished_run.folder / "model.json", model)
    with pytest.raises(KeyError, match="source"):
        insights.run_summary(finished_run, derived)


# ------------------------------------------------------------------ tables over several runs


def rows(*machines: str, **changed) -> pd.DataFrame:
    """A cell per machine, as `load.table` gives it."""
    cell = {
        "variant": "sdpa", "length_policy": "fixed-32", "batch_size": 1, "latency_ms": 12.345, "accuracy": None,
        "latency_ms_range": [9.0, 1234.5], "throughput_samples_per_s": 81.0, "peak_rss_MiB": 401.2,
        "peak_cuda_allocated_MiB": None, "state": "ok",
    }  # fmt: skip
    return pd.DataFrame([cell | {"machine": machine} | changed for machine in machines])


def test_the_range_of_the_repetitions_stands_beside_the_median():
    table = cell_tables.measured(rows("CPU"))
    assert list(table.columns)[:5] == ["length", "batch size", "latency (ms)", "from–to (ms)", "samples/s"]
    assert table.iloc[0].tolist()[:4] == ["fixed-32", "1", "12.35", "9.00–1234"]


def test_what_does_not_vary_is_left_out_and_what_is_not_ok_is_not():
    assert not {"machine", "variant", "state"} & set(cell_tables.measured(rows("CPU")).columns)
    assert list(cell_tables.measured(rows("CPU", "GPU"))["machine"]) == ["CPU", "GPU"]
    assert "state" in cell_tables.measured(rows("CPU", state="oom"))


def test_the_interval_that_is_shown_belongs_to_the_median_that_is_shown():
    """From the second lowest to the second highest of ten, not Student's t of the mean."""
    both = {"latency_ms_interval_95": [11.0, 13.0], "latency_ms_interval_of_median": [12.0, 14.0]}
    table = rows("CPU", latency_ms_repetitions=10, **both)
    assert cell_tables.measured(table)["from–to (ms)"].tolist() == ["12.00–14.00"]
    assert cell_tables.measured_caption(table) == (
        "Medians. From–to reaches from the second lowest to the second highest of 10 fresh processes per cell, "
        "which holds the median of all such processes in 97.9% of cases"
    )


def test_the_caption_of_the_table_says_whose_sentences_are_cut():
    table = rows("CPU", latency_ms_repetitions=2, truncated_share=0.279, truncated_of="of the whole text")
    assert cell_tables.measured(table)["cut"].tolist() == ["27.9%"]
    assert cell_tables.measured_caption(table).endswith(". Cut: share of the sentences of the whole text")
    assert cell_tables.measured_caption(table.assign(truncated_of="of a cycle")).endswith("sentences of a cycle")
    unknown = table.assign(truncated_share=float("nan"), truncated_of=None)
    assert "cut" not in cell_tables.measured(unknown), "no run of these knows it"
    assert "Cut" not in cell_tables.measured_caption(unknown)


def test_the_caption_of_the_table_says_that_settling_was_not_tested():
    said = cell_tables.measured_caption(rows("CPU", doubts=[NOT_TESTED]))
    assert said.endswith(". Whether the warm-up had settled was not tested")


def test_what_has_no_range_has_a_dash():
    assert cell_tables.measured(rows("CPU", latency_ms=None, latency_ms_range=None))["from–to (ms)"].tolist() == ["–"]
    assert cell_tables.measured(rows("CPU").drop(columns="latency_ms_range"))["from–to (ms)"].tolist() == ["–"]
    assert cell_tables.measured_caption(rows("CPU", latency_ms_range=None)) == "Nothing was timed"


def test_efficiency_has_batch_sizes_across():
    long = pd.DataFrame({"machine": "CPU", "variant": "sdpa", "length_policy": "fixed-32", "batch_size": [1, 8]})
    table = cell_tables.efficiency(long.assign(efficiency=[1.0, 0.256], mark=["", " (unstable)"]))
    assert [str(column) for column in table.columns] == ["variant", "length", "1", "8"]
    assert table.iloc[0].tolist() == ["sdpa", "fixed-32", "1.00", "0.26 (unstable)"]
    both = cell_tables.efficiency(pd.concat([long, long.assign(machine="GPU")]).assign(efficiency=1.0, mark=""))
    assert both["machine"].tolist() == ["CPU", "GPU"]


def test_side_by_side():
    table = tables.side_by_side([{"run": "a", "n": 1}, {"run": "b", "n": 2}])
    assert list(table.columns) == ["run", "a", "b"]
    assert table.iloc[0].tolist() == ["n", 1, 2]
