"""What people see where the terminal knows few letters, and where an error comes that nobody foresaw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distilbench import terminal


def distilbench(*words: object, env: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "distilbench.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | env)


def test_letters_become_plain_ones_and_bytes_of_file_names_stay():
    terminal.prepare()
    assert "1–2 × µ".encode("ascii", terminal.DEGRADES) == b"1-2 x u"
    assert "1–2 µ".encode("latin-1", terminal.DEGRADES) == b"1-2 \xb5"
    assert os.fsdecode(b"a\xff").encode("utf-8", terminal.DEGRADES) == b"a\xff"
    assert "日".encode("ascii", terminal.DEGRADES) == b"\\u65e5"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", terminal.DEGRADES)


# ------------------------------------------------------------------ what nobody foresaw


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def _version_onto_a_full_disk(**env: str) -> subprocess.CompletedProcess:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "distilbench.cli.main", "version"]
        return subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=os.environ | env
        )


def test_output_onto_a_full_disk_is_one_line():
    done = _version_onto_a_full_disk()
    assert done.returncode == 1
    assert done.stderr.startswith("error: the operating system refused: [Errno 28] No space left on device")
    assert len(done.stderr.splitlines()) == 1
    assert "DISTILBENCH_TRACEBACK=1" in done.stderr


def test_the_traceback_is_there_for_who_asks():
    asked = _version_onto_a_full_disk(DISTILBENCH_TRACEBACK="1")
    assert asked.returncode == 1
    assert "Traceback" in asked.stderr


def test_a_name_longer_than_any_file_system_takes_is_one_line():
    said = distilbench("show", "a" * 300, env={}).stderr
    assert b"File name too long" in said
    assert b"Traceback" not in said
