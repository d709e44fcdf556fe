"""Numbers under names: every measured one has a key, and what an executed notebook carries is read back as it was."""

from __future__ import annotations

import contextlib
import io
import re

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from distilbench import paths, simulated_traces
from distilbench.report import glue, load


def test_every_number_has_a_name(finished_run):
    values = glue.values(finished_run)
    assert values["run_id"] == finished_run.run_id
    assert values["machine"] == load.label(finished_run)
    assert values["cells"] == 2
    assert values["processes"] == 6
    assert (values["batch_size_first"], values["batch_size_last"]) == (1, 4)
    summary = paths.read_json(finished_run.folder / "summary.json")
    for cell in summary["cells"]:
        where = f"sdpa-longest-b{cell['batch_size']}"
        assert values[f"{where}-latency_ms"] == cell["latency_ms"]
        assert values[f"{where}-throughput_samples_per_s"] == cell["throughput_samples_per_s"]
        assert values[f"{where}-peak_memory_MiB"] == cell["peak_rss_MiB"]
        assert values[f"{where}-accuracy_low"] < values[f"{where}-accuracy"] < values[f"{where}-accuracy_high"]
        assert values[f"{where}-accuracy_n"] == 32
    first, last = (cell["throughput_samples_per_s"] for cell in summary["cells"])
    assert values["sdpa-longest-gain"] == last / first
    assert values["sdpa-longest-best-throughput_batch_size"] == 4
    assert "sdpa-longest-efficiency_last" not in values, "there is no such number where the work per sentence varies"


def test_what_intervals_are_worth_has_a_name_where_there_are_intervals(make_run):
    for repetitions, worth in ((5, simulated_traces.coverages(5)["two-mode"]), (4, None)):
        values = glue.values(make_run(repetitions=repetitions, batch_sizes=[2]))
        assert values.get("coverage_two_mode") == worth
        assert ("coverage_smooth" in values) == (worth is not None)


def test_what_was_not_measured_has_no_name(finished_run):
    assert not any("energy" in name for name in glue.values(finished_run))


def test_what_one_cell_lacks_has_no_name_while_another_has_it(finished_run):
    summary = paths.read_json(finished_run.folder / "summary.json")
    summary["cells"][0] |= {"latency_ms": None, "latency_ms_range": None}
    paths.write_json(finished_run.folder / "summary.json", summary)
    values = glue.values(finished_run)
    assert "sdpa-longest-b1-latency_ms" not in values
    assert values["sdpa-longest-b4-latency_ms"] > 0


def test_keys_are_such_that_a_role_can_name_them(finished_run):
    assert all(re.fullmatch(r"[\w.-]+", name) for name in glue.values(finished_run))


def test_carried_by_a_notebook_and_read_back():
    named = {"a": 1, "b-c": 0.1 + 0.2, "d": "Xeon, 2 cores"}
    shell = InteractiveShell.instance()
    with capture_output() as captured, contextlib.redirect_stdout(io.StringIO()):
        shell.user_ns["named"], shell.user_ns["glue"] = named, glue
        shell.run_cell("glue.put(named)")
    outputs = [
        nbformat.v4.new_output("display_data", data=shown.data, metadata=shown.metadata) for shown in captured.outputs
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
    assert glue.read(notebook) == named
    assert all(set(output.data) == {f"{glue.HIDDEN}text/plain"} for output in outputs), "nothing of it is seen"


def test_ceilings_parts_and_control_have_names(make_run):
    run = make_run(control=True, repetitions=5)
    summary = paths.read_json(run.folder / "summary.json")
    summary["ceilings"] = {"matrix_flops_per_s": {"float32": 3.29e11}, "memory_bytes_per_s": 2.5e10}
    summary["cells"][0] |= {"request": {"tokenise_ms": 0.5, "forward_ms": 9.0}, "roofline": {"fraction": 0.25}}
    summary["cells"][0]["iterations_ms"]["page_faults"] = [1, 30_000]
    paths.write_json(run.folder / "summary.json", summary)
    values = glue.values(run)
    assert (values["sdpa-longest-b1-page_faults_low"], values["sdpa-longest-b1-page_faults_high"]) == (1, 30_000)
    assert (values["ceiling_float32_GFLOP_per_s"], values["ceiling_memory_GB_per_s"]) == (329, 25)
    assert values["sdpa-longest-b1-request_tokenise_ms"] == 0.5
    assert values["sdpa-longest-b1-roofline_fraction"] == 0.25
    assert (values["control_ratio"], values["control_verdict"]) == (1, "SAME")
    assert values["control_low"] <= 1 <= values["control_high"]
    assert values["cells"] == 2, "the control is no cell of the sweep"
