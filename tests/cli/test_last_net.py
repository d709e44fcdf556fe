"""The last net: whatever the operating system says, each command ends with one line and an exit code."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from distilbench import paths, progress
from distilbench.cli import doctor, main
from distilbench.errors import DistilbenchError
from distilbench.machine import environment

#: Every command with what it must be given.
COMMANDS = {
    "run": "distilbert", "fetch": "", "show": "", "compare": "one two", "publish": "latest", "book": "", "pdf": "",
    "slides": "", "release": "", "analyse": "", "calibrate": "", "doctor": "", "version": "", "verify run": "",
    "verify book": "", "verify release": "", "verify data": "", "submit": "", "status": "", "cancel": "latest",
    "push": "", "optimal": "", "recommend": "latest", "capacity": "--rate 1 --max-latency-ms 1", "job ingest": "latest",
    "job measure": "latest --part 0", "job gather": "latest", "job analyse": "latest", "job book": "latest",
    "job sections": "latest", "job account": "latest", "claims": "",
    "profile-batches": "",
}  # fmt: skip
#: What every command calls sooner or later, or one of them.
CALLED = ((paths, "repo_root"), (paths, "results_root"), (environment, "packages"), (doctor, "examine"))


def names(command: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    """Of all commands, with those of groups."""
    if not hasattr(command, "commands"):
        yield " ".join(before)
        return
    for name, below in command.commands.items():
        yield from names(below, (*before, name))


def test_the_list_has_every_command():
    assert set(names(typer.main.get_command(main.app))) == set(COMMANDS)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), RuntimeError("can't start new thread")])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_shows_a_traceback(command, error, monkeypatch, capsys, tmp_path):
    def fail(*_: object, **__: object) -> None:
        raise error

    for where, name in CALLED:
        monkeypatch.setattr(where, name, fail)
    for name in ("handlers", "propagate", "level"):
        monkeypatch.setattr(progress.log, name, getattr(progress.log, name))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["distilbench", *command.split(), *COMMANDS[command].split()])
    monkeypatch.delenv("DISTILBENCH_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (1, 1), said
    assert said.startswith("error: ")
    assert "Traceback" not in said
    if not isinstance(ended.value.__context__, DistilbenchError):
        assert str(error) in said
        assert "Nothing that was measured is lost" in said
