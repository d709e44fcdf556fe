"""Real runs, shared by all tests here: what they leave, what verify finds, what is shown."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluating import CELL, NAMES, checkpoint, made_up_rows, resolved

from distilbench import paths, studies
from distilbench.errors import RunError
from distilbench.harness import processes, steps
from distilbench.measurements.evaluation import records
from distilbench.measurements.evaluation.measure import worker
from distilbench.measurements.evaluation.show import entry, plots, tables
from distilbench.measurements.evaluation.summary import derive, join
from distilbench.measurements.sweep.measure import worker as sweep
from distilbench.report import export, insights, load
from distilbench.runs import verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet, write_parquet

LONGEST = CELL.replace("fixed-16", "longest")


@pytest.fixture(scope="session")
def of_random(tmp_path_factory) -> Run:
    """The ci profile as it is: random weights, in a fresh process."""
    design = studies.resolve("evaluate", {"profile": "ci", "results_root": str(tmp_path_factory.mktemp("random"))})
    run = studies.start(design)
    steps.measure_run(run, design)
    run.require_ok()
    return run


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory) -> Run:
    """Two cells of a checkpoint with five classes on rows of which two are damaged; its processes are this one."""

    def here(command: tuple[str, ...], *_: object) -> tuple[int, str]:
        return worker.main(Path(command[-1])), ""

    folder = tmp_path_factory.mktemp("evaluated")
    data = made_up_rows(folder / "rows.tsv", 200)
    lines = data.read_bytes().split(b"\n")
    lines[20], lines[90] = b"music\t", b"ne\xffws\tx"
    data.write_bytes(b"\n".join(lines))
    given = {"length_policies": ["fixed-16", "longest"], "damaged_rows": "skip"}
    design = resolved(folder / "results", checkpoint(folder / "model"), data, **given)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(processes, "_spawn", here)
        patched.setattr(sweep, "take_cores", lambda protocol: [0])
        patched.setattr(sweep, "threads_used", lambda job, cores: {"threads_used": 1})
        run = studies.start(design)
        steps.measure_run(run, design)
    run.require_ok()
    return run


@pytest.fixture
def spoilt(evaluated, tmp_path) -> Run:
    """A copy to spoil."""
    shutil.copytree(evaluated.folder, tmp_path / "copy")
    return Run(tmp_path / "copy")


# ------------------------------------------------------------------ what it leaves


def test_random_weights_have_times_and_no_accuracy(of_random):
    (record,) = of_random.measured()
    assert (record.rows, record.batches, record.processes) == (80, 10, 1)
    assert record.accuracy_reason == "random weights: no accuracy"
    quality = (record.accuracy, record.macro_f1, record.weighted_f1, record.confusion, record.accuracy_wilson_95)
    assert quality == (None,) * 5
    assert record.per_class == []
    assert record.throughput_samples_per_s == 80 / record.total_s
    assert record.peak_rss_MiB > 100
    assert record.start == "fresh"
    summary = of_random.summary
    assert of_random.kind.showing.headline(summary).startswith("random weights: no accuracy; ")
    assert "random weights: no accuracy" in insights.run_summary(of_random, summary)
    assert not any("accuracy" in name for name in of_random.kind.showing.numbers(of_random))


def test_every_row_is_there_once_and_every_file_belongs_to_a_record(evaluated):
    files = {str(file.relative_to(evaluated.folder)) for file in (evaluated.folder / records.FOLDER).iterdir()}
    assert files == {name for record in evaluated.measured() for name in record.files}
    assert evaluated.recover() == []
    for record in evaluated.measured():
        rows = read_parquet(evaluated.folder / records.predictions_name(record.cell))
        assert [row["row"] for row in rows] == [n for n in range(1, 201) if n not in (20, 90)]
        assert (record.rows, record.rows_damaged) == (198, 2)
        assert sum(one.support for one in record.per_class) == 198
        right = sum(row["label"] == row["predicted"] for row in rows)
        assert record.accuracy == right / 198
        assert record.label_names == list(NAMES)
        assert list(record.confusion) == list(NAMES), "by name, as the model has them"


def test_the_cells_differ_in_their_padding_and_in_what_is_cut(evaluated):
    fixed, longest = evaluated.summary["cells"]
    assert (fixed["cell"], longest["cell"]) == (CELL, LONGEST)
    assert fixed["truncated_share"] > 0 == longest["truncated_share"]
    assert longest["tokens"] > fixed["tokens"]
    assert fixed["padding_share"] > 0


def test_the_committed_schema_is_that_of_the_record(of_random):
    committed = (paths.repo_root() / "book" / "schemas" / "evaluation.v1.schema.json").read_text()
    assert committed == json.dumps(records.json_schema(), indent=2, sort_keys=True) + "\n"
    for line in of_random.raw.read_text().splitlines():
        assert json.loads(line).keys() == records.json_schema()["properties"].keys()


# ------------------------------------------------------------------ verify


def test_runs_verify(of_random, evaluated):
    assert verify.problems(of_random.folder) == verify.problems(evaluated.folder) == []


def rewrite(run: Run, name: str, schema, change) -> None:
    """Changes rows of a file, and makes its hash in the record fit: then only the numbers tell."""
    (record,) = [line for line in run.raw.read_text().splitlines() if name in line]
    rows = read_parquet(run.folder / name)
    change(rows)
    sha256 = write_parquet(run.folder / name, rows, schema)
    run.raw.write_text(run.raw.read_text().replace(json.loads(record)["files_sha256"][name], sha256))


def test_a_changed_prediction_is_found_by_its_hash_and_by_what_follows(spoilt):
    name = records.predictions_name(CELL)

    def change(rows):
        rows[7]["predicted"] = (rows[7]["predicted"] + 1) % 5

    before = spoilt.raw.read_text()
    rewrite(spoilt, name, records.PREDICTIONS, change)
    found = verify.problems(spoilt.folder)
    assert any(f"{CELL}: confusion: " in one for one in found)
    assert not any("not the committed file" in one for one in found)
    spoilt.raw.write_text(before)
    assert any(f"{name} is not the committed file" in one for one in verify.problems(spoilt.folder))


def test_a_row_that_is_there_twice_and_one_that_is_missing_are_found(spoilt):
    rewrite(spoilt, records.predictions_name(CELL), records.PREDICTIONS, lambda rows: rows.insert(3, dict(rows[3])))
    rewrite(spoilt, records.predictions_name(LONGEST), records.PREDICTIONS, lambda rows: rows.pop())
    found = verify.problems(spoilt.folder)
    assert any("a row is there twice, or out of order" in one for one in found)
    assert any(f"{LONGEST}: rows says 198, computed again it is 197" in one for one in found)


def test_a_changed_time_is_found(spoilt):
    def change(rows):
        rows[-1]["chunk_s"] *= 2

    rewrite(spoilt, records.batches_name(CELL), records.BATCHES, change)
    found = verify.problems(spoilt.folder)
    assert any("total_s says" in one for one in found)
    assert any("throughput_samples_per_s says" in one for one in found)


def test_labels_that_are_not_those_of_the_data_are_found(spoilt):
    data = spoilt.data
    first, second = sorted(data["labels"])[:2]
    data["labels"][first], data["rows_damaged"] = data["labels"][second] + 7, 1
    paths.write_json(spoilt.folder / "data.json", data)
    found = verify.problems(spoilt.folder)
    assert any(f"rows by label against data.json: {first} says" in one for one in found)
    assert any("against data.json: rows_damaged says 2, computed again it is 1" in one for one in found)


@pytest.mark.parametrize(("name", "value"), [("macro_f1", 0.5), ("accuracy_wilson_95", [0.1, 0.2]), ("processes", 3)])
def test_a_changed_number_of_record_and_summary_is_found(spoilt, name, value):
    lines = [json.loads(line) for line in spoilt.raw.read_text().splitlines()]
    lines[0][name] = value
    spoilt.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verify.problems(spoilt.folder)
    assert any(one.startswith("evaluation.jsonl") and name in one for one in found)
    assert any(one.startswith("summary.json") and name in one for one in found)


def test_a_measured_record_without_its_files_is_none(evaluated):
    line = json.loads(evaluated.raw.read_text().splitlines()[0])
    with pytest.raises(ValueError, match="a measured evaluation has rows, times and files"):
        records.EvaluationRecord.model_validate(line | {"files_sha256": {}})


# ------------------------------------------------------------------ shown


def test_it_is_shown_with_its_doubts(evaluated):
    summary, showing = evaluated.summary, evaluated.kind.showing
    text = insights.run_summary(evaluated, summary)
    assert "2 damaged rows were left out, such as line 21: the sentence is empty; line 91: byte 0xff" in text
    assert "of the rows were cut to fit fixed-16" in text
    assert "the weakest class is " in text
    assert showing.headline(summary).startswith(f"accuracy {summary['cells'][0]['accuracy']:.4f} (")
    assert "198 rows of 5 labels, 2 more left out" in export.citation(evaluated)
    assert showing.title(evaluated).startswith("A whole data set: local checkpoint")
    assert showing.counted(evaluated) == "2 evaluations computed again from each of their predictions"
    assert showing.limitations(evaluated)[0].startswith("tiny random models")
    assert "interval" in showing.reservation(summary)
    numbers = showing.numbers(evaluated)
    assert numbers["sdpa-fixed-16-b4-accuracy"] == summary["cells"][0]["accuracy"]
    assert numbers["sdpa-longest-b4-accuracy_low"] == summary["cells"][1]["accuracy_wilson_95"][0]
    assert numbers["sdpa-fixed-16-b4-batch_p95_ms"] == summary["cells"][0]["batch_times_ms"]["p95"]
    assert len(showing.frame(evaluated)) == 2
    details = showing.details(load.table([evaluated]), "tab-evaluation")
    assert [table.name for table in details] == ["tab-evaluation-classes", "tab-evaluation-confused"]
    for record in evaluated.measured():
        assert "198 rows, accuracy 0." in record.in_words()


def lines_of(run: Run) -> list[dict]:
    """The records in the order of the cells; that of measuring is shuffled."""
    lines = [json.loads(line) for line in run.raw.read_text().splitlines()]
    return sorted(lines, key=lambda line: line["cell"])


def test_classes_that_are_absent_or_few_are_named(spoilt):
    lines = lines_of(spoilt)
    lines[0]["per_class"][0]["support"], lines[0]["per_class"][1]["support"], lines[0]["processes"] = 0, 3, 4
    spoilt.raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = join.summarise(spoilt.folder)["cells"][0]["doubts"]
    assert f"no row has these labels of the model: {NAMES[0]}" in said
    assert any(one.startswith("classes with fewer than 30 rows") and NAMES[1] in one for one in said)
    assert any("it was interrupted: 4 processes" in one for one in said)


def test_of_many_labels_a_doubt_names_a_few():
    assert join._some(["a", "b", "c", "d"]) == "a, b, c, d"
    assert join._some(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"


def test_tables_tell_cells_apart_and_say_why_there_is_nothing(evaluated, of_random):
    rows = load.table([evaluated]).to_dict("records")
    for made in (tables.results(rows), tables.per_class(rows), tables.confused(rows), tables.times(rows)):
        assert set(made["length"]) == {"fixed-16", "longest"}
    assert len(tables.per_class(rows)) == 10
    counts = tables.confused(rows[:1])["rows"].astype(int).tolist()
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == tables.MOST
    of_none = load.table([of_random]).to_dict("records")
    for made in (tables.per_class(of_none), tables.confused(of_none)):
        assert list(made["why"]) == ["random weights: no accuracy"]
    twice = [row | {"machine": name} for name in ("one", "other") for row in rows]
    assert list(tables.results(twice)["machine"].unique()) == ["one", "other"]
    assert "processes" in tables.times(of_none)
    lost = [{"cell": "x", "state": "oom", "length_policy": "longest", "batch_size": 4, "variant": "sdpa"}]
    assert list(tables.times(lost)["why"]) == ["not measured (oom)"]
    assert list(tables.results(lost)["accuracy"]) == ["–"]
    perfect = [row | {"confusion": {"a": {"a": 1}}, "per_class": [{"label": "a", "support": 1}]} for row in rows[:1]]
    assert list(tables.confused(perfect)["why"]) == ["no class is confused with another"]


def test_what_was_not_measured_is_said(spoilt):
    lines = lines_of(spoilt)
    kept = {name: lines[1][name] for name in (*spoilt.config["cells"][1], "study", "repetition", "pass", "started")}
    lost = kept | {"status": "timeout", "error": "too slow", "seconds": 1}
    spoilt.raw.write_text("".join(json.dumps(line) + "\n" for line in (lines[0], lost)))
    summary = join.summarise(spoilt.folder)
    assert [cell["state"] for cell in summary["cells"]] == ["ok", "timeout"]
    assert f"{LONGEST}: not measured (timeout)" in entry.doubts(summary)
    assert "TIMEOUT too slow" in spoilt.repetitions()[1].in_words()
    assert entry.headline({"cells": summary["cells"][1:]}) == "Nothing was evaluated."


def row_of(classes: int) -> dict:
    counts = np.random.default_rng(1).integers(0, 3, (classes, classes)) * 1200
    counts[np.arange(classes), np.arange(classes)] = 9_950
    counts[-1] = 0
    found = derive.quality(counts, [f"class {i}" for i in range(classes)])
    return {"cell": "c", "length_policy": "fixed-16", "batch_size": 4, "variant": "sdpa", "state": "ok",
            "batch_times_ms": {}} | found  # fmt: skip


@pytest.mark.parametrize("classes", [2, 23])
def test_the_picture_has_every_class_and_takes_the_pages_colours(classes, tmp_path):
    row = row_of(classes)
    shown = plots.plot([row])._repr_mimebundle_()
    picture = shown["image/svg+xml"]
    for name in row["confusion"]:
        assert picture.count(f">{name}<") == 2, "on both axes, none left out for want of room"
    assert ">10k<" in picture if classes > plots.MANY else ">9,950<" in picture
    assert "currentColor" in picture
    assert "fill: white" not in picture
    assert f"class {classes - 1} has no rows" in shown["text/plain"]
    assert {file.suffix for file in plots.save([row], tmp_path)} == {".svg", ".png"}
    assert plots.short(999) == "999"
    assert plots.short(1000) == "1.0k"


def test_pictures_of_several_cells_have_titles_and_none_has_its_reason(evaluated, of_random, tmp_path):
    rows = load.table([evaluated]).to_dict("records")
    picture = plots.plot(rows)._repr_mimebundle_()["image/svg+xml"]
    assert all(f"{policy}, batch size 4" in picture for policy in ("fixed-16", "longest"))
    assert "2 cells one after the other" in entry.figure_caption(evaluated, "fig-x-confusion")
    assert entry.figure_caption(evaluated, "fig-other") is None
    assert entry.figure_caption(of_random, "fig-x-confusion") is None
    none = load.table([of_random]).to_dict("records")
    assert plots.plot(none).text == "Confusion matrix: not measured: random weights: no accuracy"
    assert plots.save(none, tmp_path) == []


# ------------------------------------------------------------------ parameters


@pytest.mark.parametrize(("batch", "chunk", "rows"), [(32, 512, 512), (4, 10, 8), (100, 32, 100), (1, 7, 7)])
def test_a_chunk_is_whole_batches(batch, chunk, rows):
    params = studies.resolve("evaluate", {"profile": "ci", "batch_size": batch, "chunk_rows": chunk}).params
    assert params.rows_per_chunk == rows


def test_a_run_in_shards_takes_what_its_ingest_prepared(evaluated, tmp_path):
    measuring = evaluated.kind.measuring
    run = Run(tmp_path / "run", evaluated.kind)
    assert not measuring.is_prepared(run)
    with pytest.raises(RunError, match="is missing"):
        measuring.load(run)
    from distilbench.measurements.evaluation.measure.spec import Prepared

    prepared = Prepared("rows", "tokenizer", ["a", "b"], 0, 7, {"vocab_size": 30})
    prepared.save(run)
    paths.write_json(run.folder / "parts.json", {})
    assert measuring.prepare(None, run) == measuring.load(run) == copy.deepcopy(prepared)
