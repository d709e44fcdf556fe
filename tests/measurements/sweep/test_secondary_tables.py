"""The tables behind the main one, on numbers that one can follow."""

from __future__ import annotations

import pandas as pd
import pytest

from distilbench import paths
from distilbench.measurements.sweep.show import secondary_tables
from distilbench.report import load, tables
from distilbench.stats import summary_of

CELL = {"machine": "a machine", "variant": "sdpa", "length_policy": "fixed-32", "batch_size": 8}


def one(**fields) -> pd.DataFrame:
    return pd.DataFrame([CELL | fields])


def test_tails_that_too_few_iterations_bear_stand_in_brackets():
    found = summary_of([float(i) for i in range(1, 101)])
    row = secondary_tables.tails(one(iterations_ms=found)).iloc[0].to_dict()
    assert row == {
        "length": "fixed-32", "batch size": "8", "n": "100", "p50 (ms)": "50.50", "p90 (ms)": "90.10",
        "p95 (ms)": "(95.05)", "p99 (ms)": "(99.01)", "p99.9 (ms)": "(99.90)",
    }  # fmt: skip


def test_what_differs_within_processes_and_between_them():
    found = {"outliers": 2, "page_faults": [12.4, 3000], "autocorrelation": 0.456}
    found |= {"variance_ms2": {"within": 1.0, "between": 3.0, "share_between": 0.984}}
    row = secondary_tables.processes(one(iterations_ms=found)).iloc[0].to_dict()
    told = {"outliers": "2", "autocorrelation": "0.46", "page faults": "12 to 3,000"}
    assert row == {"length": "fixed-32", "batch size": "8"} | told | {"variance between processes": "98%"}
    row = (
        secondary_tables.processes(one(iterations_ms={"autocorrelation": None, "variance_ms2": None})).iloc[0].to_dict()
    )
    assert set(row.values()) == {"fixed-32", "8", "–"}


def test_numbers_in_brackets_are_grey_in_every_form():
    table = tables.Table(pd.DataFrame({"p99 (ms)": ["(12.3)"], "p50 (ms)": ["10.1"], "note": ["(a word)"]}), "c", "tab")
    bundle = table._repr_mimebundle_()
    grey = '<span class="db-grey">(12.3)</span>'
    assert grey in bundle["text/markdown"]
    assert f"<td>{grey}</td>" in bundle["text/html"]
    assert "(12.3)" in bundle["text/plain"]
    assert bundle["text/html"].count("db-grey") == 1, "words in brackets are words"


def test_parts_of_a_request_add_up():
    parts = {"n": 8, "tokenise_ms": 1.0, "transfer_ms": 0.5, "forward_ms": 8.0, "postprocess_ms": 0.5}
    row = secondary_tables.requests(one(request=parts)).iloc[0]
    assert row["not the forward"] == "20.0%"
    assert (row["tokenise (ms)"], row["forward (ms)"]) == ("1", "8")


MEMORY = {
    "started_rss_MiB": 400.0, "loaded_rss_MiB": 500.0, "first_peak_rss_MiB": 530.0, "steady_peak_rss_MiB": 540.0,
    "delta_rss_MiB": 40.0, "loaded_cuda_MiB": None, "first_peak_cuda_MiB": None, "steady_peak_cuda_MiB": None,
    "delta_cuda_MiB": None,
}  # fmt: skip


def test_memory_of_a_host():
    row = secondary_tables.memory(one(memory=MEMORY)).iloc[0].to_dict()
    assert list(row.values())[2:] == ["400", "500", "530", "540", "40"]


def test_memory_of_a_device_leaves_the_host_out():
    on_device = {"loaded_cuda_MiB": 250.0, "first_peak_cuda_MiB": 300.0, "steady_peak_cuda_MiB": 290.0}
    row = secondary_tables.memory(one(memory=MEMORY | on_device | {"delta_cuda_MiB": 50.0})).iloc[0].to_dict()
    assert list(row.values())[2:] == ["250", "300", "290", "50"]
    assert "libraries" not in row


def test_peaks_that_could_not_be_had_are_dashes():
    unknown = {"first_peak_rss_MiB": None, "steady_peak_rss_MiB": None, "delta_rss_MiB": None}
    row = secondary_tables.memory(one(memory=MEMORY | unknown)).iloc[0].to_dict()
    assert list(row.values())[2:] == ["400", "500", "–", "–", "–"]


def test_the_roofline_has_its_share():
    found = {
        "bound": "compute",
        "fraction": 0.666,
        "flops_per_s": 2.2e11,
        "bytes_per_s": 4.5e8,
        "flops_per_byte": 488.9,
    }
    row = secondary_tables.roofline(one(roofline=found)).iloc[0].to_dict()
    assert list(row.values())[2:] == ["220", "0.45", "489", "compute", "67%"]


def test_the_caption_of_the_roofline_says_what_it_stands_against(finished_run, make_run):
    said = "Rates reached, no ceilings were measured"
    assert secondary_tables.roofline_caption([finished_run]) == said
    summary = paths.read_json(finished_run.folder / "summary.json")
    ceilings = {"matrix_flops_per_s": {"float32": 3.29e11}, "memory_bytes_per_s": 2.5e10}
    paths.write_json(finished_run.folder / "summary.json", summary | {"ceilings": ceilings})
    alone = secondary_tables.roofline_caption([finished_run])
    assert alone == "Rates reached, against ceilings measured in the run: 329 GFLOP/s in float32, 25 GB/s of memory"
    assert f"(run {finished_run.run_id})" in secondary_tables.roofline_caption([finished_run, make_run()])


def test_what_varies_is_shown_and_what_no_cell_has_is_said():
    found = {"bound": "memory", "fraction": 0.5, "flops_per_s": 1e9, "bytes_per_s": 1e9, "flops_per_byte": 1.0}
    rows = [CELL | {"roofline": found}, CELL | {"roofline": found, "machine": "another"}, CELL | {"roofline": None}]
    two = pd.DataFrame(rows)
    shown = secondary_tables.roofline(two)
    assert list(shown["machine"]) == ["a machine", "another"]
    assert "variant" not in shown
    assert secondary_tables.roofline(one(roofline=None)).iloc[0, 0] == "this was not measured"
    assert secondary_tables.requests(one()).iloc[0, 0] == "this was not measured"
    untold = one(memory=None, peak_memory_MiB_reason="the memory pass was not asked for")
    assert secondary_tables.memory(untold).iloc[0, 0] == "this was not measured: the memory pass was not asked for"
    assert secondary_tables.memory_caption(untold) == "Memory by phase (MiB): not measured"


def test_captions_say_over_how_many_processes():
    told = one(peak_memory_MiB=1.0, peak_memory_MiB_repetitions=2, latency_request_ms_repetitions=5)
    assert secondary_tables.memory_caption(told) == "Memory by phase (MiB); medians over 2 fresh processes per cell"
    assert secondary_tables.requests_caption(told).endswith("medians over 5 fresh processes per cell")


@pytest.mark.parametrize(
    ("verdict", "interval", "said"),
    [
        ("SAME", [0.99, 1.01], "took 1.001 times as long (95 % interval 0.990 to 1.010), rightly called the same"),
        ("SLOWER", [1.03, 1.05], "a false SLOWER: differences of this size mean nothing here"),
        ("AMBIGUOUS", None, "took 1.001 times as long, too few repetitions to judge"),
    ],
)
def test_the_control_says_what_equal_things_differ_by(verdict, interval, said):
    control = {
        "cell": {"control_of": "b008", "doubts": ["a doubt"]},
        "ratio": 1.001,
        "ratio_interval_95": interval,
        "verdict": verdict,
    }
    sentence = secondary_tables.control({"control": control})
    assert sentence.startswith("control: b008, measured under a second name, took ")
    assert said in sentence
    assert sentence.endswith("; a doubt")


def test_without_a_control_nothing_is_said():
    assert secondary_tables.control({"control": None}) is secondary_tables.control({}) is None
    assert secondary_tables.control({"control": {"cell": {}, "ratio": None}}) is None


def test_a_full_run_judges_its_control(make_run):
    run = make_run(control=True, repetitions=5)
    summary = paths.read_json(run.folder / "summary.json")
    assert summary["control"]["ratio"] == 1
    assert summary["control"]["verdict"] == "SAME", "its repetitions differ by 4 %, but those of a round do not"
    assert summary["control"]["cell"]["control_of"] == "sdpa-float32-longest-b001"
    assert [cell["cell"] for cell in summary["cells"]] == ["sdpa-float32-longest-b001", "sdpa-float32-longest-b004"]
    assert load.limitations([run])["what it means"].str.contains("rightly called the same").sum() == 1


def test_a_run_of_few_repetitions_says_what_its_intervals_are_worth(make_run):
    """Computed for its own number of them: five hold the truth too rarely where processes have two modes."""
    five, ten, two = (make_run(repetitions=n, batch_sizes=[2]) for n in (5, 10, 2))
    said = secondary_tables.intervals(five)
    assert said == (
        "comparisons: Student's t over 5 repetitions, at 95 %, holds the truth of simulated ones in 94.7% (smooth), "
        "95.4% (drifting), 95.0% (spiky), 76.3% (two-mode); over 10, as a full run has by default, in 93.7% (two-mode)"
    )
    assert load.limitations([five])["what it means"].eq(said.partition(": ")[2]).any(), "on its page"
    assert secondary_tables.intervals(ten) is None, "they are worth what they claim"
    assert secondary_tables.intervals(two) is None, "it has none"


def test_unstable_cells_are_marked_in_tables_of_what_was_timed():
    parts = {f"{name}_ms": 1.0 for name in ("tokenise", "transfer", "forward", "postprocess")}
    assert secondary_tables.requests(one(request=parts, state="unstable"))["batch size"][0] == "8 (unstable)"
    assert secondary_tables.requests(one(request=parts, state="ok"))["batch size"][0] == "8"
