"""What people see where the terminal knows few letters, and where an error comes that nobody foresaw."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distilbench import cli, paths, runs, terminal

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
POOR = [ASCII, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]


def distilbench(*words: object, env: dict[str, str], **named) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "distilbench.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | env, **named)


@pytest.mark.parametrize("env", POOR)
def test_a_run_is_shown_in_letters_that_the_terminal_has(env):
    run = runs.published_runs()[-1]
    shown = distilbench("show", run.run_id, env=env)
    assert shown.returncode == 0, shown.stderr
    assert b"  -  " in shown.stdout, "a number that is not there"
    table = distilbench("show", run.run_id, "--format", "md", env=env)
    assert table.returncode == 0, table.stderr


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("doctor",), ("show", "absent \u2013 ü")])
def test_help_findings_and_errors_too(words):
    for env in POOR:
        done = distilbench(*words, env=env | {"HF_HUB_OFFLINE": "1"})
        assert b"Traceback" not in done.stderr
        assert done.returncode == int("absent" in words[-1])


def test_letters_become_plain_ones_and_bytes_of_file_names_stay():
    terminal.prepare()
    assert "1–2 × µ".encode("ascii", terminal.DEGRADES) == b"1-2 x u"
    assert "1–2 µ".encode("latin-1", terminal.DEGRADES) == b"1-2 \xb5"
    assert os.fsdecode(b"a\xff").encode("utf-8", terminal.DEGRADES) == b"a\xff"
    assert "日".encode("ascii", terminal.DEGRADES) == b"\\u65e5"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", terminal.DEGRADES)


def test_a_checkout_below_a_folder_with_an_accent_measures_and_verifies_in_ascii(tmp_path):
    checkout = tmp_path / "dé and space"
    for name in ("distilbench", "params", "notebooks", "tests/data"):
        shutil.copytree(paths.repo_root() / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    env = ASCII | {"PYTHONPATH": str(checkout), "DISTILBENCH_ROOT": str(checkout)}
    env |= {"DISTILBENCH_RESULTS": str(checkout / "results"), "DISTILBENCH_CACHE": str(checkout / "cache")}
    small = ("-p", "passes", "timing", "-p", "repetitions", "1", "-p", "batch_sizes", "4")
    done = distilbench("run", "distilbert", "--profile", "ci", *small, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    again = distilbench("verify", "run", "latest", env=env, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert b"1 repetitions computed again" in again.stdout


# ------------------------------------------------------------------ what nobody foresaw


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_onto_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "distilbench.cli", "version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the operating system refused: [Errno 28] No space left on device")
    assert len(done.stderr.splitlines()) == 1
    assert "DISTILBENCH_TRACEBACK=1" in done.stderr


def test_the_traceback_is_there_for_who_asks():
    name = "a" * 300  # longer than any file system takes
    assert b"Traceback" not in distilbench("show", name, env={}).stderr
    asked = distilbench("show", name, env={"DISTILBENCH_TRACEBACK": "1"})
    assert asked.returncode == 1
    assert b"Traceback" in asked.stderr


def test_a_name_of_bytes_that_no_check_caught_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_call", lambda: "caf\udce9".encode())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("error: a name is not UTF-8; rename the file or folder: 'utf-8' codec can't encode")
    assert len(said.splitlines()) == 1
