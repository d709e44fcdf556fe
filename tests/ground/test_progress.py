"""Progress: lines that programs can read, an honest estimate, a bar in a notebook; the log in text and in JSON."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import types
from collections import Counter

import pytest

from distilbench import progress
from distilbench.progress import PROGRESS_LINE, Progress, duration, log, set_up_log


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock.now`."""
    fake = types.SimpleNamespace(now=1000.0, monotonic=lambda: fake.now)
    monkeypatch.setattr(progress, "time", fake)
    return fake


def begin(clock, total: int, done: int = 0) -> Progress:
    return Progress(total, done, _began=clock.now)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (40, "40 s"),
        (89, "89 s"),
        (91, "2 min"),
        (600, "10 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (90_000, "25.0 h"),
    ],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_steps_that_come_together_count_each_with_its_share_of_the_time(clock, capsys):
    bar = begin(clock, 10, done=2)
    clock.now += 8
    bar.step("four at once", 4)
    assert capsys.readouterr().out == "[ 6/10] four at once, about 8 s left\n"


def test_what_came_before_the_first_step_is_in_no_estimate(clock):
    """The start of the process that forks: nearly a minute, once."""
    bar = begin(clock, 10)
    clock.now += 55
    bar.step("x", seconds=5.0)
    assert bar.left() == 45


def test_each_kind_of_step_has_its_own_pace(clock):
    """Steps of seconds, then trainings of minutes: seconds say little of what a second training will take."""
    bar = Progress(8, ahead=Counter(steps=4, train=3), _began=clock.now)
    bar.step("x", seconds=10, kind="steps")
    assert bar.left() == 3 * 10 + 3 * 10 + 10, "a kind that was not seen yet is taken at the pace of all"
    bar.skip(kind="steps")
    bar.step("x", seconds=600, kind="train")
    bar.step("x", seconds=14, kind="steps")
    assert bar.left() == 1 * 14 + 2 * 600 + 14


def test_each_step_is_a_line_that_the_chain_understands(clock, capsys):
    bar = begin(clock, 12)
    for number in range(12):
        clock.now += 10
        bar.step(f"cell {number}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[ 1/12] cell 0, about 2 min left"
    assert lines[9] == "[10/12] cell 9, about 20 s left"
    assert lines[11] == "[12/12] cell 11"
    read = [PROGRESS_LINE.match(line) for line in lines]
    assert [(int(m[1]), int(m[2])) for m in read] == [(i, 12) for i in range(1, 13)]
    assert read[0][3] == "cell 0, about 2 min left"


@pytest.mark.parametrize("total", [1, 9, 10, 999, 1000])
def test_lines_of_any_length_are_understood_and_aligned(total):
    lines = [Progress(total, done=done).line("x") for done in {1, total // 2, total}]
    assert all(PROGRESS_LINE.match(line) for line in lines)
    assert len({line.index("]") for line in lines}) == 1


def test_other_lines_are_not_taken_for_progress():
    for line in ("[note] x", "1/2 x", " [1/2] x", "[1/2]x", "[x/2] y"):
        assert not PROGRESS_LINE.match(line)


def test_the_estimate_is_the_median_step_times_the_steps_left(clock):
    bar = begin(clock, 10)
    assert bar.left() == 0, "nothing is known yet"
    for seconds in (5, 1, 300):  # one step that hung must not spoil the estimate
        clock.now += seconds
        bar.step("x")
    assert bar.left() == 5 * 7


def test_steps_of_an_earlier_start_count_as_done_and_not_as_fast(clock):
    bar = begin(clock, 10, done=6)
    clock.now += 20
    bar.step("x")
    assert bar.done == 7
    assert bar.left() == 20 * 3
    assert bar.line("x") == "[ 7/10] x, about 60 s left"


def test_a_step_that_was_skipped_takes_nothing_from_the_estimate(clock):
    """The sweep counts what an earlier start measured by raising `done`."""
    bar = begin(clock, 4)
    bar.done += 2
    clock.now += 7
    bar.step("x")
    assert bar.left() == 7


def test_nothing_is_left_at_the_end(clock):
    bar = begin(clock, 1)
    clock.now += 3
    bar.step("x")
    assert (bar.left(), bar.line("x")) == (0, "[1/1] x")


class Display:
    """A page: what `display` puts there, and what then stands in that place."""

    def __init__(self) -> None:
        self.shown, self.places = [], 0

    def __call__(self, content, display_id):
        assert display_id is True
        self.places += 1
        self.shown.append(content.data)
        return self

    def update(self, content):
        self.shown.append(content.data)


@pytest.fixture
def notebook(monkeypatch) -> Display:
    """A notebook's kernel is around this test, and its page is the fixture."""
    import IPython
    import IPython.display

    display = Display()
    monkeypatch.setattr(IPython, "get_ipython", lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", display)
    return display


def test_a_notebook_gets_one_bar_that_is_updated(notebook, clock, capsys):
    bar = begin(clock, 2)
    for what in ("a < b", "c"):
        clock.now += 4
        bar.step(what)
    assert notebook.shown == [
        '<progress value="1" max="2"></progress> [1/2] a &lt; b, about 4 s left',
        '<progress value="2" max="2"></progress> [2/2] c',
    ]
    assert notebook.places == 1
    assert capsys.readouterr().out == ""


def test_a_program_that_draws_the_bar_itself_gets_lines(notebook, clock, capsys, monkeypatch):
    monkeypatch.setenv("DISTILBENCH_PROGRESS", "lines")
    Progress(1).step("x")
    assert capsys.readouterr().out == "[1/1] x\n"
    assert notebook.shown == []


def test_a_terminal_and_a_batch_log_get_lines(clock, capsys):
    Progress(1).step("x")
    assert capsys.readouterr().out == "[1/1] x\n"


@pytest.mark.parametrize("kernel", [None, "plain IPython"])
def test_ipython_without_a_kernel_is_no_notebook(monkeypatch, kernel):
    import IPython

    shell = None if kernel is None else types.SimpleNamespace()
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    assert not progress._in_notebook()


def test_without_ipython_there_is_no_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert not progress._in_notebook()


# ------------------------------------------------------------------ the log


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
