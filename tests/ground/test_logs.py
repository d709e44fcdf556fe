"""Log lines: plain text, JSON for programs, colours for terminals only."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

from distilbench.progress import log, set_up_log


@pytest.fixture(autouse=True)
def logger_as_before():
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_text_is_the_message_alone():
    stream = io.StringIO()
    set_up_log("text", stream)
    log.info("notebook %s", "01_ingest", extra={"fields": {"event": "notebook"}})
    log.debug("not shown")
    assert stream.getvalue() == "notebook 01_ingest\n"


def test_json_is_one_object_per_line_with_the_fields():
    stream = io.StringIO()
    set_up_log("json", stream)
    log.info("two\nlines – ü", extra={"fields": {"event": "progress", "done": 1, "total": 2}})
    log.warning("no fields")
    one, two = (json.loads(line) for line in stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one.pop("time"))
    assert one == {"level": "info", "message": "two\nlines – ü", "event": "progress", "done": 1, "total": 2}
    assert (two["level"], two["message"]) == ("warning", "no fields")


def test_a_terminal_gets_colours_unless_json_was_asked_for():
    set_up_log("text", Terminal())
    assert type(log.handlers[0]).__name__ == "RichHandler"
    set_up_log("json", stream := Terminal())
    log.info("x")
    assert json.loads(stream.getvalue())["message"] == "x"


def test_without_a_stream_it_is_stderr(capsys):
    set_up_log("text")
    log.info("to stderr")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "to stderr\n")


def test_setting_up_again_replaces_and_nothing_is_said_twice(capsys):
    first, second = io.StringIO(), io.StringIO()
    set_up_log("text", first)
    set_up_log("text", second)
    log.info("once")
    assert (first.getvalue(), second.getvalue()) == ("", "once\n")
    assert log.handlers[1:] == []
    assert log.propagate is False, "the root logger of a program that uses the package says nothing"
    assert logging.getLogger("distilbench") is log
