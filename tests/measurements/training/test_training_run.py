"""Real runs, shared by all tests here: what they leave, what verify finds, what is shown, what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import training_rows

from distilbench import paths, studies
from distilbench.errors import DeviceError, DistilbenchError, Stopped
from distilbench.harness import processes, steps
from distilbench.measurements.training import records
from distilbench.measurements.training.measure import launch, loop, watch, worker
from distilbench.measurements.training.measure import run as measuring
from distilbench.measurements.training.measure.spec import TrainingSpec
from distilbench.measurements.training.show import entry, pages, plots, tables
from distilbench.report import export, insights, load
from distilbench.runs import find, verify
from distilbench.runs.folder import Run
from distilbench.runs.rawfiles import read_parquet, write_parquet
from distilbench.training import checkpoint, corpus
from distilbench.training.ranks import joined
from distilbench.training.steps import PREDICTIONS, STEPS
from distilbench.training.trainer import Trainer

ONE, TWO = "p1-b12", "p2-strong-b6"
STUDY = {
    "profile": "ci", "num_threads": 2, "deterministic": False, "scalings": ["strong"], "loop_blocks": 2,
    "block_steps": 2, "timed_steps": 4, "warmup_steps": 1, "epochs": 8, "learning_rate": 3e-3,
}  # fmt: skip


def design(folder: Path, **given):
    values = training_rows.settings(folder, **STUDY) | given
    return studies.resolve("agnews", values | {"results_root": str(folder / "results")})


def measured(resolved) -> Run:
    run = studies.start(resolved, new=True)
    steps.measure_run(run, resolved)
    run.require_ok()
    return run


@pytest.fixture
def in_this_process(monkeypatch):
    """A single process is this one; groups of them are real."""
    real = processes._spawn

    def here(command: tuple[str, ...], *rest: object) -> tuple[int | None, str]:
        if json.loads(Path(command[-1]).read_text()).get("identity", {}).get("processes") != 1:
            return real(command, *rest)
        return launch.main(Path(command[-1])), ""

    monkeypatch.setattr(processes, "_spawn", here)
    patch_worker(monkeypatch)


def patch_worker(patched) -> None:
    """Leaves cores, threads and log of the process of the tests as they are."""
    patched.setattr(worker, "take_cores", lambda protocol, rank, count: protocol["affinity"][:1])
    patched.setattr(worker, "set_up_log", lambda *_: None)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Run:
    """One process, and two under torchrun."""
    return measured(design(tmp_path_factory.mktemp("trained")))


@pytest.fixture
def spoilt(trained, tmp_path) -> Run:
    """A copy to spoil."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    return Run(tmp_path / "copy")


# ------------------------------------------------------------------ what it leaves


def test_each_configuration_was_timed_and_trained(trained):
    found = {(one.cell, one.pass_) for one in trained.measured()}
    assert found == {(ONE, "steps"), (TWO, "steps"), (ONE, "loop"), (ONE, "train"), (TWO, "train")}
    for record in trained.measured():
        assert record.start == "fresh"
        assert len(record.peak_rss_MiB) == len(record.cores_of_processes) == record.processes
        assert record.num_threads == 2, "the same budget"
    many = next(one for one in trained.measured() if (one.cell, one.pass_) == (TWO, "steps"))
    assert (many.backend, many.threads_per_process, many.timed_steps) == ("gloo", 1, 4)
    assert 0 < many.shares.allreduce < 1
    rows = read_parquet(trained.folder / records.file_name(TWO, "steps", 0, "steps"))
    assert [(row["step"], row["rank"]) for row in rows] == [(step, rank) for step in range(1, 6) for rank in (0, 1)]


def test_two_processes_become_as_good_as_one(trained):
    """Dropout draws other numbers in each process, so not to the last digit (see tests/training/test_many.py)."""
    one, two = trained.summary["cells"]
    assert one["test_rows"] == two["test_rows"] == training_rows.TEST
    assert [epoch["rows"] for epoch in one["epochs"]] == [epoch["rows"] for epoch in two["epochs"]]
    assert one["test_accuracy"] > 0.5, "four classes"
    assert two["epochs"][-1]["validation_rows"] == trained.data["splits"]["validation"]["rows"]


def test_the_checkpoint_is_in_the_run_and_can_be_loaded(trained):
    file = trained.folder / "checkpoints" / ONE / "distilbert_train.pt"
    found = checkpoint.load(file)
    assert found["run_id"] == trained.run_id
    assert found["label_names"] == sorted(training_rows.WORDS)
    (record,) = [one for one in trained.measured() if (one.cell, one.pass_) == (ONE, "train")]
    assert record.checkpoint_sha256["distilbert_train.pt"] == paths.sha256_file(file)
    assert (file.parent / "distilbert_train" / "tokenizer.json").is_file()


def test_every_file_belongs_to_a_record(trained):
    files = {str(file.relative_to(trained.folder)) for file in (trained.folder / records.FOLDER).iterdir()}
    assert files == {name for record in trained.measured() for name in record.files}
    assert not (trained.folder / "work").exists()


def test_the_committed_schema_is_that_of_the_record(trained):
    committed = (paths.repo_root() / "book" / "schemas" / "training.v1.schema.json").read_text()
    assert committed == json.dumps(records.json_schema(), indent=2, sort_keys=True) + "\n"
    for line in trained.raw.read_text().splitlines():
        assert json.loads(line).keys() == records.json_schema()["properties"].keys()


# ------------------------------------------------------------------ verify


def test_a_run_verifies(trained):
    assert verify.problems(trained.folder) == []
    assert "computed again from their steps" in entry.counted(trained)


def rewrite(run: Run, name: str, schema, change) -> list[str]:
    """Changes rows of a file, and makes its hash in the record fit: then only the numbers tell. What verify says."""
    (record,) = [json.loads(line) for line in run.raw.read_text().splitlines() if name in line]
    rows = read_parquet(run.folder / name)
    change(rows)
    sha256 = write_parquet(run.folder / name, rows, schema)
    run.raw.write_text(run.raw.read_text().replace(record["files_sha256"][name], sha256))
    return verify.problems(run.folder)


def test_a_changed_time_of_a_step_is_found(spoilt):
    def slower(rows):
        rows[-1]["step_ms"] *= 2

    found = rewrite(spoilt, records.file_name(TWO, "steps", 0, "steps"), STEPS, slower)
    assert any("throughput_samples_per_s says" in one for one in found)


def test_a_changed_prediction_and_one_that_is_missing_are_found(spoilt):
    def other(rows):
        right = next(row for row in rows if row["split"] == "test" and row["label"] == row["predicted"])
        right["label"] = (right["label"] + 1) % 4

    name = records.file_name(ONE, "train", 0, "predictions")
    assert any("test_accuracy says" in one for one in rewrite(spoilt, name, PREDICTIONS, other))
    found = rewrite(spoilt, name, PREDICTIONS, lambda rows: rows.pop())
    assert any("test_rows says 53, computed again it is 52" in one for one in found)
    found = rewrite(spoilt, name, PREDICTIONS, lambda rows: rows.append(rows[-1]))
    assert any("1 rows were classified twice" in one for one in found)


def test_rows_that_are_not_those_of_the_data_are_found(spoilt):
    data = spoilt.data
    data["splits"]["test"]["rows"] += 1
    data["splits"]["validation"]["rows"] += 1
    paths.write_json(spoilt.folder / "data.json", data)
    found = verify.problems(spoilt.folder)
    assert any("rows against data.json: test says 53, computed again it is 54" in one for one in found)
    assert any("rows against data.json: validation after epoch 1 says" in one for one in found)


def test_a_changed_block_is_found(spoilt):
    def slower(rows):
        for row in rows:
            row["seconds"] *= 2 if row["kind"] == "bare" else 1

    found = rewrite(spoilt, records.file_name(ONE, "loop", 0, "blocks"), records.BLOCKS, slower)
    assert any("loop_share says" in one for one in found)


def test_a_changed_speed_up_is_found(spoilt):
    summary = spoilt.summary
    summary["cells"][1]["speedup"] *= 1.78
    paths.write_json(spoilt.folder / "summary.json", summary)
    assert any("speedup says" in one for one in verify.problems(spoilt.folder))


# ------------------------------------------------------------------ what is shown


def test_what_is_shown_of_a_run(trained):
    text = insights.run_summary(trained, trained.summary)
    assert "samples/s in one process" in text
    assert "in 2 processes (strong)" in text
    numbers = entry.numbers(trained)
    assert numbers[f"{TWO}-speedup"] == trained.summary["cells"][1]["speedup"]
    assert numbers[f"{ONE}-test_accuracy_low"] < numbers[f"{ONE}-test_accuracy"]
    assert numbers["test_rows"] == training_rows.TEST
    table = load.table([trained])
    rows = table.to_dict("records")
    assert list(tables.results(rows)["processes"]) == ["1", "2"]
    assert tables.steps(rows).loc[0, "all-reduce, beside it"] == "–", "one process sends nothing"
    assert len(tables.epochs(rows)) == 16
    assert len(tables.loops(rows)) == 1
    assert "times the samples/s of one process (linear: 1)" in entry.sentences(table)[0]
    assert [one.name for one in entry.details(table, "tab-x")] == ["tab-x-steps", "tab-x-trainings"]
    assert export.csv(trained).count("\n") == 2
    assert "53 test" in load.about([trained])[0]["text"]
    assert len(entry.subject(trained)) == 2
    assert entry.reservation(trained.summary)


def test_what_is_read_of_a_run_for_claims(trained):
    (one, two) = entry.readings(trained, "throughput_samples_per_s", {})
    timed = {r.cell: r.throughput_samples_per_s for r in trained.measured() if r.pass_ == "steps"}
    assert one.by_round == {0: timed[ONE]}, "not those of the whole training"
    assert two.cell["scaling"] == "strong"
    (first, _) = entry.readings(trained, "test_accuracy", {})
    assert first.counted[1] == training_rows.TEST
    assert entry.readings(trained, "loop_share", {})[0].by_round.keys() == {0}


def test_pictures(trained, tmp_path):
    shown = plots.timeline(trained)
    assert "Timeline of 3 steps of p2-strong-b6" in shown.alt_text
    assert "all-reduce" in shown.alt_text
    assert "Training loss over the rows seen" in plots.loss(trained).alt_text
    names = {file.name for file in plots.save(trained, tmp_path)}
    assert names == {"timeline.svg", "timeline.png", "loss.svg", "loss.png"}
    assert "as they were timed" in plots.caption(trained, "fig-x-timeline")
    assert plots.caption(trained, "fig-x-loss")
    assert plots.caption(trained, "fig-x-other") is None


def test_nothing_is_drawn_of_what_was_not_measured(in_this_process, tmp_path):
    run = measured(design(tmp_path, processes=[1], trainings="none", loop_blocks=0))
    assert "no repetition with two processes" in plots.timeline(run).text
    assert "nothing was trained" in plots.loss(run).text
    assert plots.save(run, tmp_path / "plots") == []
    rows = load.table([run]).to_dict("records")
    for table in (tables.trainings(rows), tables.epochs(rows), tables.loops(rows)):
        assert "why" in table


def test_the_pages_of_benchmarks_name_the_hardware_and_are_rendered(trained):
    single, double = pages.single([trained]), pages.double([trained])
    for page in (single, double):
        assert f"**Hardware: {load.label(trained)}.** No" in page
        assert "say nothing of" in page
        assert "What this cannot say:" in page
    assert TWO in double
    assert TWO not in single
    assert "No run is published yet" in pages.double([])


def test_the_committed_pages_are_those_of_the_published_runs():
    runs = [run for run in find.published_runs() if run.config["study"] == "agnews"]
    for name, text in entry.rendered(runs).items():
        assert (paths.repo_root() / name).read_text() == text


# ------------------------------------------------------------------ one process, here


def test_a_whole_study_of_one_process(in_this_process, tmp_path, monkeypatch, capsys):
    """In this process, with a checkpoint where people look for it."""
    places = []
    monkeypatch.setattr(checkpoint, "copy", lambda name, folder, target: places.append((name, target)) or target)
    resolved = design(tmp_path, processes=[1], epochs=1)
    run = studies.start(resolved, new=True)
    prepared = measuring.prepare(resolved.params, run)
    smoke = resolved.params.model_copy(update={"profile": "smoke"})
    (_, *_, last) = run.kind.plan(resolved)
    cell = last[0]
    take = measuring.take(run, type(resolved)(smoke, resolved.origins), prepared)
    assert take(cell, "loop", 0, 1).loop_share > 0
    assert take(cell, "train", 0, 1).test_rows == training_rows.TEST
    root = paths.checkpoints_root()
    assert places == [("distilbert_train", run.folder / "checkpoints" / ONE), ("distilbert_train", root)]
    assert "the trained classifier" in capsys.readouterr().out


def test_a_training_that_was_interrupted_goes_on(in_this_process, tmp_path, monkeypatch):
    resolved = design(tmp_path, processes=[1], loop_blocks=0, checkpoint_steps=2)
    run = studies.start(resolved, new=True)
    one_step, asked = Trainer.one_step, []

    def stopped(self, *arguments):
        if self.params.max_steps is None and self.step == 5 and not asked:
            asked.append(1)
            raise Stopped("asked to stop")
        one_step(self, *arguments)

    monkeypatch.setattr(Trainer, "one_step", stopped)
    with pytest.raises(Stopped, match="asked to stop"):
        steps.measure_run(run, resolved)
    assert run.status["state"] == "preempted"
    assert {one.pass_ for one in run.repetitions()} == {"steps"}, "nothing is committed of a half training"
    again = studies.start(resolved)
    assert again.run_id == run.run_id
    steps.measure_run(again, resolved)
    (record,) = [one for one in again.measured() if one.pass_ == "train"]
    assert record.interruptions == 1
    assert verify.problems(again.folder) == []
    assert any("the training was interrupted" in doubt for doubt in again.kind.showing.doubts(again.summary))


def test_an_attempt_at_a_shard_goes_on_with_the_state_that_was_saved_last(tmp_path):
    parts = tmp_path / "parts" / "0000"
    for number, name in enumerate(("a", "b", "c")):
        paths.write_json(parts / name / "attempt.json", {})
        if name != "c":
            paths.write_json(parts / name / "work" / "training" / "x" / "state.pt", {"from": name})
            place = parts / name / "work" / "training" / "x" / "state.pt"
            os.utime(place, (number + 1, number + 1))
    own = parts / "c" / "work" / "training" / "x"
    measuring._take_over(Run(parts / "c"), own)
    assert paths.read_json(own / "state.pt") == {"from": "b"}
    paths.write_json(own / "state.pt", {"from": "c"})
    measuring._take_over(Run(parts / "c"), own)
    assert paths.read_json(own / "state.pt") == {"from": "c"}, "its own is not overwritten"


def test_blocks_alternate_over_the_same_rows(tmp_path):
    params = training_rows.params(tmp_path, batch_size=12, epochs=100, max_steps=100)
    with joined("cpu", 20) as here:
        trainer = Trainer(params, corpus.prepare(params, tmp_path / "rows"), tmp_path / "out", here)
        found = loop.blocks(trainer, 6, 4)
    assert [row["block"] for row in found] == [n for n in range(1, 7) for _ in range(2)]
    assert [row["kind"] for row in found[:4]] == ["training", "bare", "bare", "training"]
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert (first["rows"], first["steps"]) == (second["rows"], second["steps"])
    assert len(trainer.pending) == 7 * 4, "the training's own are noted, those of the bare loop are not"


# ------------------------------------------------------------------ what goes wrong


def job_of(folder: Path, processes_: int = 2, pass_name: str = "steps", **given) -> tuple[Run, TrainingSpec]:
    resolved = design(folder, **given)
    run = studies.start(resolved, new=True)
    prepared = measuring.prepare(resolved.params, run)
    cell = next(one for one in run.kind.cells(resolved.params) if one.processes == processes_)
    names = {"study": "agnews", "pass": pass_name, "repetition": 0, "attempt": 1}
    return run, measuring.spec_of(run, resolved.params, prepared, cell.model_dump() | names)


def test_a_process_that_fails_is_what_is_told(tmp_path, monkeypatch):
    """Under a real torchrun; the other one waits, and is ended."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from distilbench.training.trainer import Trainer\n"
        "    def fail(self, *_):\n"
        "        raise ValueError('the disk of this node is odd')\n"
        "    Trainer.one_step = fail\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run, job = job_of(tmp_path)
    record = processes.run_worker(run, measuring.WORKER, job, 240)
    assert (record.status, record.error) == ("failed", "rank 1: ValueError: the disk of this node is odd")
    assert "FAILED rank 1" in record.in_words()


def test_more_rows_than_there_are_is_said(in_this_process, tmp_path):
    run, job = job_of(tmp_path, 1, batch_size=400, processes=[1])
    record = processes.run_worker(run, measuring.WORKER, job, 240)
    assert record.status == "failed"
    assert "more than the" in record.error


def test_a_helper_leaves_no_record(tmp_path):
    assert worker.Helped(status="ok").to_line() == "{}"


def test_each_process_has_cores_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr("os.sched_setaffinity", lambda pid, cores: taken.append(cores))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: taken.append(count))
    protocol = {"affinity": [0, 1, 4, 5, 6], "num_threads": 5}
    for rank in (0, 1):
        worker.take_cores(protocol, rank, 2)
    worker.take_cores({"affinity": [3], "num_threads": 1}, 1, 2)
    assert taken == [[0, 4, 6], 2, [1, 5], 2, [3], 1]


def test_cores_that_cannot_be_had_are_named(monkeypatch):
    def refuse(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("os.sched_setaffinity", refuse)
    with pytest.raises(DeviceError, match=r"cores \[7\] cannot be used: Invalid argument"):
        worker.take_cores({"affinity": [7], "num_threads": 1}, 0, 1)


def test_what_a_training_says_is_shown_while_it_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(watch, "EVERY_S", 0.01)
    file = tmp_path / "log.txt"
    file.write_text("before\n")
    with watch.shown(file), file.open("a") as opened:
        opened.write("epoch 1 of 3\nhalf a li")
    assert capsys.readouterr().out == "  epoch 1 of 3\n"
    with watch.shown(tmp_path / "none.txt"):
        pass
    assert capsys.readouterr().out == ""


def test_what_is_fetched_is_named(tmp_path):
    data, model = measuring.fetch(design(tmp_path).params)
    assert data["rows"] == training_rows.TRAIN + training_rows.TEST
    assert model.parameters > 1000
    assert len(model.sha256) == 64


def test_a_run_goes_on_with_the_same_rows_only(in_this_process, tmp_path):
    resolved = design(tmp_path, processes=[1], trainings="none", loop_blocks=0, repetitions=2)
    run = studies.start(resolved, new=True)
    measuring.prepare(resolved.params, run)
    assert measuring.load(run) == measuring.prepare(resolved.params, run)
    file = tmp_path / "train.tsv"
    file.write_text(file.read_text() + "one more row\tsports\n")
    with pytest.raises(DistilbenchError):
        measuring.prepare(resolved.params, run)
