"""What a user types, and what is said to wrong input; in this process where nothing needs another."""

from __future__ import annotations

import socket
import sys

import pytest
import training_rows

from distilbench import paths
from distilbench.errors import ParameterError, Stopped
from distilbench.training import __main__ as script
from distilbench.training import trainer


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def called(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["training", *words])
    return script.main()


def small(tmp_path, **given) -> list[str]:
    return training_rows.command(training_rows.settings(tmp_path, **given), tmp_path / "out")[3:]


def test_it_trains_and_says_what_came_of_it(tmp_path, monkeypatch, capsys):
    assert called(monkeypatch, *small(tmp_path, deterministic=False)) == 0
    said = capsys.readouterr().out
    assert "epoch 1 of 2: training loss" in said
    assert "validation accuracy" in said
    assert f"{training_rows.TEST} rows), of epoch" in said
    assert paths.read_json(tmp_path / "out" / "results.json")["trained_on"] == "train"
    assert called(monkeypatch, *small(tmp_path, deterministic=False)) == 0
    assert "resumed after step" in capsys.readouterr().out


def test_the_help_names_every_parameter(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, "--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--learning-rate VALUE" in said
    assert "--run-ids" not in said


def test_the_default_output_is_named_after_the_data():
    _, folder, given = script.arguments(["--source", "embedded"])
    assert (folder, given) == (paths.checkpoints_root() / "training-four_sources", False)
    assert script.arguments([])[1].name == "training-agnews"
    assert script.arguments(["--output", "x"])[2]


def test_without_an_output_the_checkpoint_is_where_it_is_looked_for(tmp_path, monkeypatch):
    words = small(tmp_path, epochs=1)
    at = words.index("--output")
    monkeypatch.setattr(script.paths, "repo_root", lambda: tmp_path)
    assert called(monkeypatch, *words[:at], *words[at + 2 :]) == 0
    found = tmp_path / "checkpoints"
    assert (found / "distilbert_train.pt").read_bytes() == (
        found / "training-train" / "distilbert_train.pt"
    ).read_bytes()
    assert (found / "distilbert_train" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "0"], "batch_size"),
        (["--epochs", "many"], "epochs"),
        (["--precision", "float8"], "precision"),
        (["--source", "local"], "model_source is 'local', so model_path must name a file or folder"),
        (["--source", "random", "--data-source", "local", "--data-path", "x"], "test_path must name a file to test on"),
        (["--source", "embedded", "--dtype", "float64", "--precision", "bfloat16"], "autocast from float32 weights"),
    ],
)
def test_wrong_values_are_refused(words, message):
    with pytest.raises(ParameterError, match=message):
        script.arguments(words)


def test_a_misspelt_option_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, "--learning-rat", "1")
    assert ended.value.code == 2
    assert "unrecognized arguments: --learning-rat" in capsys.readouterr().err


def test_an_error_is_a_line_and_an_exit_code(tmp_path, monkeypatch, capsys):
    assert called(monkeypatch, *small(tmp_path, batch_size=500)) == 1
    said = capsys.readouterr().err
    assert "rows per forward are more than" in said
    assert "Traceback" not in said


def test_a_device_that_is_not_there_is_named(tmp_path, monkeypatch, capsys):
    assert called(monkeypatch, *small(tmp_path, device="cuda:7")) == 1
    assert "there is no device 'cuda:7' here" in capsys.readouterr().err


def test_two_trainings_in_one_folder_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    with paths.hold_lock(tmp_path / "out" / ".lock", "busy"):
        assert called(monkeypatch, *small(tmp_path)) == 1
    assert "another training works in" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "code"), [(None, 75), ("0", 0)])
def test_a_training_that_was_asked_to_stop_can_be_gone_on_with(tmp_path, monkeypatch, rank, code):
    def stop(*_):
        raise Stopped("asked to stop")

    monkeypatch.setattr(script, "run", stop)
    if rank:
        monkeypatch.setenv("RANK", rank)
    assert called(monkeypatch, *small(tmp_path)) == code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1"), "rank 1: ended, since another process did"),
        (RuntimeError("mine alone"), "RuntimeError: mine alone"),
    ],
)
def test_what_another_process_broke_is_no_traceback(tmp_path, monkeypatch, capsys, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(script, "run", fail)
    monkeypatch.setenv("RANK", "1")
    assert called(monkeypatch, *small(tmp_path)) == 1
    written = capsys.readouterr().err
    assert said in written
    assert ("Traceback" in written) == ("mine" in said)


def test_progress_is_said_now_and_then(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "SAY_EVERY_S", 0.0)
    assert called(monkeypatch, *small(tmp_path, epochs=1)) == 0
    assert "left of this epoch" in capsys.readouterr().out


def test_a_port_that_is_taken_ends_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = training_rows.command(training_rows.settings(tmp_path), tmp_path / "out", 2)
        at = words.index("--standalone")
        words[at : at + 1] = ["--master-addr=127.0.0.1", f"--master-port={taken.getsockname()[1]}"]
        done = training_rows.run_command(words, timeout=150)
    assert done.returncode != 0
    assert "address already in use" in done.stderr.lower() or "EADDRINUSE" in done.stderr
