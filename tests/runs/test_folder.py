"""Run folders: which one a start goes on with, who may work on it, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import synthetic
from pydantic import ValidationError

from distilbench import paths, studies
from distilbench.errors import RunError, StorageError
from distilbench.machine import environment
from distilbench.measurements.sweep import records
from distilbench.measurements.sweep.kind import MEASUREMENT as SWEEP
from distilbench.measurements.sweep.measure import design
from distilbench.runs import find, parameters, rawfiles
from distilbench.runs import folder as runs_folder
from distilbench.runs.folder import Run

HOLD = """
import sys
from pathlib import Path
from distilbench.runs.folder import Run
run = Run(Path(sys.argv[1]))
with run.held():
    run.set_status("running")
    print("ready", flush=True)
    sys.stdin.read()
"""
PAPERMILL = """
import subprocess, sys
sys.exit(subprocess.run([sys.executable, "-c", {kernel!r}]).returncode)
"""


@pytest.fixture(autouse=True)
def quick_environment(this_machine):
    """Every run of these tests is begun on this machine, as far as it knows."""
    return this_machine


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def open_run(new: bool = False, **given) -> Run:
    resolved = synthetic.resolved(**given)
    return find.to_resume(resolved, new) or find.create(resolved, SWEEP)


# ------------------------------------------------------------------ making


def test_a_run_id_has_time_device_and_chance():
    ids = {find.new_run_id("cuda:1") for _ in range(50)}
    assert len(ids) == 50
    for run_id in ids:
        assert re.fullmatch(r"\d{8}T\d{6}Z-cuda1-[0-9a-f]{8}", run_id)
        made = datetime.strptime(run_id[:16] + "+0000", "%Y%m%dT%H%M%SZ%z")
        assert abs((made - datetime.now(UTC)).total_seconds()) < 60
        assert studies.resolve("distilbert", {"run_id": run_id})


def test_a_new_run_holds_what_makes_it_repeatable(tmp_path):
    run = synthetic.started_run(seed=5)
    config = run.config
    assert run.folder == tmp_path / "results" / "distilbert" / run.run_id
    assert names(run.folder) == {
        ".lock", "config.json", "data.json", "env.json", "iterations", "model.json", "notebooks", "status.json",
    }  # fmt: skip
    assert config["parameters"]["seed"] == 5
    assert config["parameters"]["run_id"] == config["run_id"] == run.run_id
    assert config["design_hash"] == synthetic.resolved(seed=5).design_hash
    assert config["origins"]["seed"] == "given"
    assert config["seeds"] == {"sample_order": 5, "random_weights": 5, "cell_order": config["design_hash"]}
    assert [cell["batch_size"] for cell in config["cells"]] == [1, 4]
    assert paths.read_json(run.folder / "env.json") == environment.capture()
    assert run.status["state"] == "pending"
    assert run.status["cells"] == {cell["cell"]: "pending" for cell in config["cells"]}
    again = studies.resolve("distilbert", config["parameters"])
    assert again.design_hash == config["design_hash"], "what is recorded names the same design"


def test_a_run_that_exists_is_not_made_again():
    run = synthetic.started_run("mine")
    before = (run.folder / "config.json").read_bytes()
    with pytest.raises(RunError, match="run mine exists already"):
        synthetic.started_run("mine", seed=3)
    assert (run.folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("made", [(), ("iterations",), ("iterations", "notebooks")])
def test_a_kill_while_a_named_run_is_made_does_not_block_its_name(tmp_path, made):
    folder = tmp_path / "results" / "distilbert" / "mine"
    folder.mkdir(parents=True)
    for name in made:
        (folder / name).mkdir()
    (folder / "env.json").write_text("{}")
    run = open_run(run_id="mine")
    assert run.folder == folder
    assert run.status["state"] == "pending"
    assert paths.read_json(folder / "env.json") == environment.capture()


def test_two_starts_that_make_the_same_run_do_not_mix(start_process, tmp_path):
    folder = tmp_path / "results" / "distilbert" / "mine"
    holder = "import sys\nfrom pathlib import Path\nfrom distilbench import paths\n"
    holder += "with paths.hold_lock(Path(sys.argv[1]) / '.lock', ''):\n  print('ready', flush=True)\n  sys.stdin.read()"
    start_process(holder, folder)
    with pytest.raises(RunError, match="mine is being worked on by another process"):
        open_run(run_id="mine")


def test_a_folder_without_a_status_is_not_a_run(tmp_path):
    whole = synthetic.started_run()
    half = tmp_path / "results" / "distilbert" / "20990101T000000Z-cpu-00000000"
    half.mkdir()
    (half / "config.json").write_text("{}")
    assert [run.run_id for run in find.all_runs(half.parent)] == [whole.run_id]
    assert find.find("latest").run_id == whole.run_id
    assert open_run().run_id == whole.run_id


def test_results_that_cannot_be_written_are_a_clear_error(tmp_path):
    (tmp_path / "regular").touch()
    for place in (tmp_path / "regular" / "results", Path("/proc/absent")):
        with pytest.raises(StorageError, match=r"cannot write .*choose another place \(--results-root") as caught:
            open_run(results_root=str(place))
        assert str(place) in str(caught.value)


def test_a_full_disk_is_a_clear_error_and_leaves_no_run(small_disk):
    for room in (0, 600):
        with small_disk.full(room), pytest.raises(StorageError, match="cannot write"):
            open_run(results_root=str(small_disk.folder))
    assert find.all_runs(small_disk.folder / "distilbert") == []
    assert open_run(results_root=str(small_disk.folder)).status["state"] == "pending"


def test_where_a_run_cannot_be_begun_no_folder_stays(tmp_path, this_machine, monkeypatch):
    def refuse(*_, **__):
        raise StorageError("the disk is full")

    monkeypatch.setattr(Run, "set_status", refuse)
    with pytest.raises(StorageError):
        open_run()
    assert list((tmp_path / "results" / "distilbert").iterdir()) == []
    mine = tmp_path / "results" / "distilbert" / "mine"
    mine.mkdir()
    (mine / "notes").touch()
    with pytest.raises(StorageError):
        open_run(run_id="mine")
    assert (mine / "notes").is_file(), "only what was made is taken back"


def test_runs_that_may_not_be_read_are_not_said_to_be_absent(tmp_path, monkeypatch):
    (tmp_path / "results").touch()
    with pytest.raises(StorageError, match=r"cannot read .*results: Not a directory"):
        find.find("latest")

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths.os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"cannot read .*results: Permission denied.*--results-root"):
        find.find("latest")


def test_a_commit_on_a_full_disk_leaves_the_run_as_it_was(small_disk):
    run = synthetic.started_run(results_root=str(small_disk.folder))
    cell = design.cells_of(synthetic.resolved().params)[0]
    record = synthetic.timing(run, cell, 0, synthetic.iterations(1), synthetic.predictions(cell.cell))
    synthetic.commit(run, synthetic.memory(cell))
    before = run.raw.read_bytes()
    with small_disk.full(room=len(before) + 10), pytest.raises(StorageError, match="cannot write"):
        synthetic.commit(run, record.model_copy(update={"error": "x" * 4096}))
    assert run.raw.read_bytes() == before
    assert run.recover() == [f"{record.iterations_file} belongs to no committed repetition; moved to orphans/"]
    synthetic.commit(run, record, synthetic.predictions(cell.cell))
    assert len(run.finished()) == 2


def test_what_no_reader_would_take_is_not_committed():
    """Such a line would make the whole run unreadable."""
    run = synthetic.started_run()
    cell = design.cells_of(synthetic.resolved().params)[0]
    with pytest.raises(ValidationError, match="stolen_cores"):
        run.commit(synthetic.memory(cell).model_copy(update={"stolen_cores": -0.1}))
    assert not run.raw.exists()


# ------------------------------------------------------------------ going on


def test_a_start_goes_on_with_the_newest_unfinished_run_of_its_design():
    for run_id in ("2026-1", "2026-2", "2026-3"):
        synthetic.started_run(run_id)
    synthetic.started_run("2026-4", seed=3)
    synthetic.started_run("2026-5").set_status("ok")
    assert open_run().run_id == "2026-3"
    assert open_run(seed=3).run_id == "2026-4"
    Run(open_run().folder).set_status("ok")
    assert open_run().run_id == "2026-2"


@pytest.mark.parametrize("state", sorted(find.UNFINISHED))
def test_every_unfinished_state_is_gone_on_with(state):
    run = synthetic.started_run()
    run.set_status(state)
    assert open_run().run_id == run.run_id


def test_a_new_run_is_made_when_asked_for_or_when_all_are_finished():
    first = synthetic.started_run()
    second = open_run(new=True)
    assert second.run_id != first.run_id
    for known in (first, second):
        known.set_status("ok")
    assert open_run().run_id not in (first.run_id, second.run_id)


def test_where_results_go_does_not_hide_an_unfinished_run(tmp_path):
    run = synthetic.started_run()
    assert open_run(results_root=str(tmp_path / "results")).run_id == run.run_id


@pytest.fixture
def said(caplog, monkeypatch):
    """What was logged, in `messages`."""
    monkeypatch.setattr(find.log, "propagate", True)
    return caplog


def test_an_unfinished_run_of_another_environment_is_left_alone(quick_environment, said):
    run = synthetic.started_run()
    quick_environment["packages"]["torch"] = "9.9.9"
    assert open_run().run_id != run.run_id
    (line,) = said.messages
    assert line.startswith(
        f"unfinished run {run.run_id} of this design is passed over: it was begun in another environ"
    )
    assert line.endswith("9.9.9' here)")


def test_runs_of_other_hosts_are_passed_over_in_one_line(quick_environment, said):
    older, newer = synthetic.started_run("older"), synthetic.started_run("newer")
    synthetic.started_run("finished").set_status("ok")
    synthetic.started_run("other", seed=3)
    quick_environment["host"]["name"] = "0123456789ab"
    made = open_run()
    assert made.run_id not in (older.run_id, newer.run_id)
    (line,) = said.messages
    assert line.startswith("unfinished run newer of this design is passed over: ")
    assert re.search(r"\(host: '.+' there, '0123456789ab' here\) \(and 1 older ones\)$", line)
    assert open_run().run_id == made.run_id, "this host's own"
    open_run(new=True)
    assert len(said.messages) == 1, "what is newer than the others, or was asked for, passes over none"


def test_an_unfinished_run_that_somebody_works_on_is_left_alone(start_process, said):
    run = synthetic.started_run()
    start_process(HOLD, run.folder)
    assert open_run().run_id != run.run_id
    assert said.messages == [f"unfinished run {run.run_id} of this design is passed over: another process works on it"]


def test_a_submitted_run_is_left_to_its_jobs(said):
    run = synthetic.started_run()
    paths.write_json(run.folder / "parts.json", {})
    assert open_run().run_id != run.run_id
    (line,) = said.messages
    assert line.endswith(f"it was submitted; resume with: distilbench submit distilbert --resume {run.run_id}")


def test_a_named_run_is_made_and_then_gone_on_with():
    assert open_run(run_id="mine").run_id == "mine"
    assert open_run(run_id="mine").run_id == "mine"


def test_another_design_is_refused_and_the_differences_are_named(tmp_path):
    synthetic.started_run("mine")
    with pytest.raises(RunError) as caught:
        open_run(run_id="mine", seed=18, batch_sizes=[1, 2], results_root=str(tmp_path / "results"))
    message = str(caught.value)
    assert "run mine has another design" in message
    assert "seed: 17 there, 18 now" in message
    assert "batch_sizes: [1, 4] there, [1, 2] now" in message
    assert "--new" in message
    assert "run_id:" not in message
    assert "results_root:" not in message
    assert synthetic.resolved().design_hash in message


def test_a_run_of_older_code_is_refused_in_words(monkeypatch):
    synthetic.started_run("mine")
    monkeypatch.setattr(parameters, "DESIGN_VERSION", parameters.DESIGN_VERSION + 1)
    with pytest.raises(RunError, match=r"another design .*: measured by another version of the code\. Start a new run"):
        open_run(run_id="mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda env: env["host"].update(name="elsewhere"), "host: '{host}' there, 'elsewhere' here"),
        (lambda env: env["packages"].update(torch="9.9.9"), "torch: .* there, '9.9.9' here"),
        (lambda env: env["cpu"].update(affinity=[0] * 99), "usable cores: .* there, 99 here"),
        (lambda env: env["python"].update(version="3.99"), "python: .* there, '3.99' here"),
    ],
)
def test_another_environment_is_refused_and_the_differences_are_named(quick_environment, change, said):
    synthetic.started_run("mine")
    said = said.replace("{host}", quick_environment["host"]["name"])
    change(quick_environment)
    with pytest.raises(RunError, match=f"run mine was begun in another environment: {said}.*--new") as caught:
        open_run(run_id="mine")
    assert str(caught.value).count(" there, ") == 1


def test_a_gpu_matters_to_a_run_that_uses_one(quick_environment):
    run = synthetic.started_run("mine")
    config = run.config
    paths.write_json(run.folder / "config.json", config | {"parameters": config["parameters"] | {"device": "cuda:0"}})
    quick_environment["gpus"] = [{"name": "H100", "driver": "570"}]
    assert sorted(line.partition(":")[0] for line in run._environment_changes()) == ["driver", "gpus"]


def test_what_does_not_change_a_measurement_may_change(quick_environment):
    synthetic.started_run("mine")
    quick_environment["gpus"] = [{"name": "H100"}]  # the run is on the CPU
    quick_environment["captured"] = "2099-01-01T00:00:00Z"
    quick_environment["packages"]["papermill"] = "9.9.9"
    quick_environment["memory_MiB"] = 1
    assert open_run(run_id="mine").run_id == "mine"


def test_a_named_run_must_be_there(tmp_path):
    synthetic.started_run("mine")
    assert find.named(synthetic.resolved(run_id="mine").params).run_id == "mine"
    with pytest.raises(RunError, match=r"there is no run 'yours' in .*distilbert; leave run_id empty"):
        find.named(synthetic.resolved(run_id="yours").params)
    with pytest.raises(RunError, match="there is no run ''"):
        find.named(synthetic.resolved().params)


def test_content_is_recorded_once_and_then_compared():
    run = synthetic.started_run()
    run.record_once("data.json", {"content_sha256": "d" * 64, "name": "renamed"}, ("content_sha256",))
    assert paths.read_json(run.folder / "data.json")["name"] == "invented"
    with pytest.raises(RunError, match=f"content_sha256 is {'d' * 64} in data.json, {'0' * 64} now.*--new"):
        run.record_once("data.json", {"content_sha256": "0" * 64}, ("content_sha256",))


# ------------------------------------------------------------------ one worker at a time


def test_a_second_process_is_refused(start_process):
    run = synthetic.started_run()
    holder = start_process(HOLD, run.folder)
    assert run.in_use
    assert run.status["state"] == "running"
    held_elsewhere = rf"run {run.run_id} is being worked on by another process \(held by process {holder.pid} "
    with pytest.raises(RunError, match=held_elsewhere), run.held():
        pytest.fail("two processes work on one run")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_process_was_killed_is_cancelled_and_free(start_process, end):
    run = synthetic.started_run()
    holder = start_process(HOLD, run.folder)
    holder.send_signal(end)
    assert holder.wait() == -end
    assert paths.read_json(run.folder / "status.json")["state"] == "running", "it had no time to say anything"
    assert run.status["state"] == "cancelled"
    assert "ended without a word" in run.status["message"]
    assert open_run().run_id == run.run_id
    with run.held() as held:
        assert held is run


def test_states_of_cells_that_are_not_given_stay():
    run = synthetic.started_run()
    one, other = run.status["cells"]
    run.set_status("running", cells={one: "ok"})
    run.set_status("failed", "no luck", {other: "failed"})
    status = run.status
    assert (status["state"], status["message"]) == ("failed", "no luck")
    assert status["cells"] == {one: "ok", other: "failed"}


def test_a_damaged_status_is_named():
    run = synthetic.started_run()
    (run.folder / "status.json").write_text('{"state": ')
    with pytest.raises(RunError, match=r"status\.json is damaged"):
        _ = run.status


# ------------------------------------------------------------------ repetitions


def test_what_is_finished_is_not_done_again_but_what_failed_is():
    run = synthetic.started_run()
    cell = design.cells_of(synthetic.resolved().params)[0]
    states = [
        "ok",
        "unstable",
        "oom",
        "unavailable",
        "skipped",
        "failed",
        "timeout",
        "cancelled",
        "preempted",
        "invalid",
    ]
    for number, state in enumerate(states):
        measured = synthetic.TIMED if state in ("ok", "unstable") else {}
        synthetic.commit(run, synthetic.repetition(cell, "timing", number, status=state, **measured))
    assert [states[number] for _, _, number in run.finished()] == ["ok", "unstable", "oom", "unavailable", "skipped"]
    assert len(run.repetitions()) == len(states)


def test_predictions_of_a_cell_are_replaced_and_those_of_others_stay(finished_run):
    one, other = (cell["cell"] for cell in finished_run.config["cells"])
    file = finished_run.folder / "predictions.parquet"
    record = synthetic.memory(design.cells_of(synthetic.resolved().params)[0], 7)
    synthetic.commit(finished_run, record, synthetic.predictions(one, right=1))
    rows = rawfiles.read_parquet(file)
    assert [row for row in rows if row["cell"] == one] == synthetic.predictions(one, right=1)
    assert [row for row in rows if row["cell"] == other] == synthetic.predictions(other)


def test_inputs_that_differ_within_a_cell_are_seen(finished_run):
    assert {len(hashes) for hashes in finished_run.inputs_of_cells().values()} == {1}
    cell = design.cells_of(synthetic.resolved().params)[0]
    synthetic.commit(finished_run, synthetic.memory(cell, 8).model_copy(update={"inputs_sha256": "0" * 64}))
    assert len(finished_run.inputs_of_cells()[cell.cell]) == 2


# ------------------------------------------------------------------ after a kill


def test_a_finished_run_needs_no_mending(finished_run):
    before = {file: file.read_bytes() for file in finished_run.folder.rglob("*") if file.is_file()}
    assert finished_run.recover() == []
    assert {file: file.read_bytes() for file in finished_run.folder.rglob("*") if file.is_file()} == before


def test_files_that_no_line_names_are_set_aside(finished_run):
    folder = finished_run.folder / "iterations"
    committed = names(folder)
    for orphan in ("sdpa-float32-longest-b001-07.parquet", ".sdpa-float32-longest-b001-08.parquet.x7"):
        (folder / orphan).write_bytes(b"whole or half")
    messages = finished_run.recover()
    assert len(messages) == 2
    assert "b001-07.parquet belongs to no committed repetition; moved to orphans/" in messages[1]
    assert names(folder) == committed
    assert len(names(finished_run.folder / "orphans")) == 2
    assert finished_run.recover() == []


def test_a_half_line_and_the_file_it_would_have_named_are_set_aside_together(finished_run):
    """A kill in the middle of a commit: the parquet file is whole, its line is not."""
    before = finished_run.repetitions()
    last = next(record for record in reversed(before) if record.iterations_file)
    lines = [record.to_line() for record in before if record is not last]
    finished_run.raw.write_text("\n".join([*lines, last.to_line()[:-20]]))
    messages = finished_run.recover()
    assert "half written" in messages[0]
    assert last.iterations_file in messages[1]
    assert last.key not in finished_run.finished()
    synthetic.measure(
        finished_run, records.SweepCell(**last.model_dump(include=set(records.SweepCell.model_fields))), *last.key[1:]
    )
    assert finished_run.finished().keys() == {record.key for record in before}
    assert (finished_run.folder / last.iterations_file).is_file()


# ------------------------------------------------------------------ finding


@pytest.fixture
def three_runs() -> list[str]:
    ids = ["20261122T141500Z-cpu-1a2b3c4d", "20261122T141501Z-cpu-5e6f7a8b", "20261123T000000Z-cuda0-1a2b0000"]
    for run_id in ids:
        synthetic.started_run(run_id)
    return ids


@pytest.mark.parametrize(
    ("reference", "which"),
    [
        ("latest", 2),
        ("20261122T141500Z-cpu-1a2b3c4d", 0),
        ("20261123", 2),
        ("20261122T141501", 1),
        ("3c4d", 0),
        ("5e6f7a8b", 1),
        ("cpu-5e6f7a8b", 1),
    ],
)
def test_a_run_is_found_by_its_id_or_the_beginning_or_end_of_it(three_runs, reference, which):
    assert find.find(reference).run_id == three_runs[which]


def test_a_run_is_found_by_its_folder(three_runs, tmp_path, monkeypatch):
    folder = tmp_path / "results" / "distilbert" / three_runs[1]
    monkeypatch.setenv("DISTILBENCH_RESULTS", str(tmp_path / "elsewhere"))
    assert find.find(str(folder)).folder == folder
    monkeypatch.chdir(folder.parent)
    assert find.find(three_runs[1]).folder == folder


def test_a_run_is_found_where_told(three_runs, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_RESULTS", str(tmp_path / "elsewhere"))
    assert find.find("latest", tmp_path / "results").run_id == three_runs[2]


@pytest.mark.parametrize("reference", ["2026", "20261122", ""])
def test_several_runs_are_listed(three_runs, reference):
    with pytest.raises(RunError, match=f"several runs match {reference!r}.*They are: ") as caught:
        find.find(reference)
    matching = [run_id for run_id in three_runs if run_id.startswith(reference)]
    assert str(caught.value).endswith(f"They are: {', '.join(matching)}.")


@pytest.mark.parametrize("reference", ["nonsense", "1a2b", "Z-cpu"])
def test_no_such_run_says_which_there_are(three_runs, reference):
    with pytest.raises(RunError, match=f"there is no run '{reference}' in .*The newest are: {', '.join(three_runs)}"):
        find.find(reference)


def test_a_whole_id_is_not_ambiguous():
    for run_id in ("night", "night-2", "first-night"):
        synthetic.started_run(run_id)
    assert find.find("night").run_id == "night"


def clock_is(monkeypatch, time: str) -> None:
    monkeypatch.setattr(environment, "now", lambda: time)
    monkeypatch.setattr(find.time, "time_ns", lambda: int(datetime.fromisoformat(time).timestamp() * 1e9))


def test_the_latest_run_does_not_follow_a_clock_that_was_set_back(monkeypatch):
    clock_is(monkeypatch, "2026-11-26T10:00:00Z")
    synthetic.started_run("b-before")
    clock_is(monkeypatch, "2026-11-20T10:00:00Z")
    for run_id in ("c-after", "a-after"):
        synthetic.started_run(run_id)
        assert find.find("latest").run_id == run_id
        assert open_run().run_id == run_id
    assert find.find("latest").config["created"] == "2026-11-20T10:00:00Z", "the clock as it was"
    clock_is(monkeypatch, "2026-11-27T10:00:00Z")
    synthetic.started_run("d-later")
    assert [run.run_id for run in find.own_runs()] == ["b-before", "c-after", "a-after", "d-later"]


def test_a_run_of_earlier_code_counts_by_its_time(monkeypatch, tmp_path):
    clock_is(monkeypatch, "2026-11-26T10:00:00Z")
    old = synthetic.started_run("old")
    config = old.config
    paths.write_json(old.folder / "config.json", {key: config[key] for key in config if key != "sequence"})
    clock_is(monkeypatch, "2026-11-20T10:00:00Z")
    assert open_run(new=True).run_id == find.find("latest").run_id != "old"


def test_a_damaged_run_does_not_keep_another_from_being_begun_after_the_sound_ones(monkeypatch):
    clock_is(monkeypatch, "2026-11-26T10:00:00Z")
    latest = synthetic.started_run("sound").config["sequence"]
    (synthetic.started_run("damaged").folder / "config.json").write_text("{")
    clock_is(monkeypatch, "2026-11-20T10:00:00Z")
    assert open_run(new=True, run_id="another").config["sequence"] > latest


def test_the_latest_run_is_the_one_made_last_whatever_its_name():
    for second, run_id in enumerate(("zebra", "20261122T141500Z-cpu-1a2b3c4d", "ape")):
        file = synthetic.started_run(run_id).folder / "config.json"
        created = {"created": f"2026-11-22T14:15:0{second}Z", "sequence": None}
        paths.write_json(file, paths.read_json(file) | created)
    assert find.find("latest").run_id == "ape"
    assert open_run().run_id == "ape"
    with pytest.raises(RunError, match="zebra, 20261122T141500Z-cpu-1a2b3c4d, ape"):
        find.find("nonsense")


def test_the_latest_run_may_be_of_any_study(tmp_path):
    for second, study in enumerate(("zoology", "distilbert", "agnews")):
        run = synthetic.started_run(f"run-of-{study}")
        config = run.config | {"created": f"2026-11-22T14:15:0{(second + 1) % 3}Z", "sequence": None}
        paths.write_json(run.folder / "config.json", config)
        (tmp_path / "results" / study).mkdir(exist_ok=True)
        run.folder.rename(tmp_path / "results" / study / run.run_id)
    assert find.find("latest").run_id == "run-of-distilbert"
    assert find.find("zoology").folder.parent.name == "zoology"


def test_no_runs_at_all_says_how_to_make_one(tmp_path):
    with pytest.raises(RunError, match=r"there are no runs in .*results: make one with `distilbench run distilbert`"):
        find.find("latest")


def test_published_runs_are_not_the_latest(three_runs, tmp_path):
    published = tmp_path / "results" / "published" / "20990101T000000Z-cpu-00000000"
    published.mkdir(parents=True)
    (published / "status.json").write_text(json.dumps({"state": "ok"}))
    assert find.find("latest").run_id == three_runs[2]


# ------------------------------------------------------------------ notebooks written elsewhere


def papermill(tmp_path: Path, run: Run, *arguments: str, program: str = "papermill") -> None:
    """What papermill is to a kernel: the parent process, with this command line, in this working directory."""
    kernel = "import sys; from pathlib import Path; from distilbench.runs.folder import Run; "
    kernel += f"Run(Path({str(run.folder)!r})).link_notebook()"
    script = tmp_path / program
    script.write_text(PAPERMILL.format(kernel=kernel))
    # the kernel imports the package that is tested, wherever that is
    env = os.environ | {"PYTHONPATH": str(Path(runs_folder.__file__).parents[2])}
    subprocess.run([sys.executable, str(script), *arguments], cwd=tmp_path, env=env, check=True)


def test_a_notebook_that_papermill_writes_elsewhere_is_in_the_run_too(tmp_path):
    run = synthetic.started_run()
    (tmp_path / "out.ipynb").write_text("first")
    papermill(tmp_path, run, "in.ipynb", "out.ipynb", "-p", "profile", "ci")
    linked = run.folder / "notebooks" / "out.ipynb"
    assert linked.samefile(tmp_path / "out.ipynb")
    (tmp_path / "out.ipynb").write_text("second")
    assert linked.read_text() == "second", "papermill goes on writing after the link was made"
    papermill(tmp_path, run, "in.ipynb", "out.ipynb")
    assert linked.samefile(tmp_path / "out.ipynb")


def test_what_is_no_papermill_output_is_not_linked(tmp_path):
    run = synthetic.started_run()
    (tmp_path / "out.ipynb").touch()
    papermill(tmp_path, run, "in.ipynb", "out.ipynb", program="jupyter")
    papermill(tmp_path, run, "in.ipynb", "absent.ipynb")
    papermill(tmp_path, run, "in.ipynb")
    inside = run.folder / "notebooks" / "01.ipynb"
    inside.touch()
    papermill(tmp_path, run, "in.ipynb", str(inside))
    assert names(run.folder / "notebooks") == {"01.ipynb"}
    assert inside.stat().st_nlink == 1


def test_on_another_file_system_the_notebook_is_linked_by_name(tmp_path, monkeypatch):
    run = synthetic.started_run()
    (tmp_path / "out.ipynb").touch()
    monkeypatch.setattr(runs_folder, "_papermill_output", lambda: tmp_path / "out.ipynb")

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    run.link_notebook()
    assert (run.folder / "notebooks" / "out.ipynb").is_symlink()


def test_a_parent_that_may_not_be_looked_at_is_no_papermill(monkeypatch):
    class Parent:
        def parent(self):
            return self

        def cmdline(self):
            raise runs_folder.psutil.AccessDenied(1)

    monkeypatch.setattr(runs_folder.psutil, "Process", Parent)
    assert runs_folder._papermill_output() is None


def test_a_run_of_a_kind_that_this_version_does_not_know_is_named_so(finished_run):
    config = finished_run.config
    paths.write_json(finished_run.folder / "config.json", config | {"kind": "seance"})
    with pytest.raises(RunError, match=r"knows no kind of measurement 'seance'; it knows: alignment, .*, training"):
        Run(finished_run.folder).repetitions()
