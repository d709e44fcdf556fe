"""Progress of long work, as lines in a log, for a program that draws them, or as a bar; and the log itself."""

from __future__ import annotations

import html
import json
import logging
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

PROGRESS_LINE = re.compile(r"^\[\s*(\d+)/(\d+)\] (.*)$")
log = logging.getLogger("distilbench")


def duration(seconds: float) -> str:
    """For people: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class Progress:
    """Counts steps; the estimate of what is left is the median step so far, of the same kind where one is done."""

    total: int
    done: int = 0  # those of an earlier start included
    ahead: Counter[str] = field(default_factory=Counter)  # kinds of the steps left, where they are known
    _seconds: list[tuple[str, float]] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _bar: object = None

    def step(self, what: str, count: int = 1, seconds: float | None = None, kind: str = "") -> None:
        """A step is finished, or several; says so.

        Args:
            seconds: what it took without what came before the first; None: the time since the last step.
        """
        now = time.monotonic()
        self._seconds.append((kind, (now - self._began) / count if seconds is None else seconds))
        self._began = now
        self.skip(count, kind)
        self._show(what)

    def skip(self, count: int = 1, kind: str = "") -> None:
        """Steps that need not be taken, such as those of an earlier start."""
        self.done += count
        self.ahead -= Counter({kind: count})  # never below none

    def left(self) -> float:
        """Seconds that the rest will take: each kind at its own median pace so far, a new one at that of all."""
        others = self.total - self.done - self.ahead.total()
        return sum(count * self._pace(kind) for kind, count in self.ahead.items()) + max(0, others) * self._pace("")

    def _pace(self, kind: str) -> float:
        """Seconds of a step: the median."""
        ordered = sorted(seconds for of, seconds in self._seconds if of == kind)
        ordered = ordered or sorted(seconds for _, seconds in self._seconds)
        return ordered[len(ordered) // 2] if ordered else 0.0

    def line(self, what: str) -> str:
        """`[ 7/18] what, about 2 min left`: the form that `distilbench run` turns into a bar."""
        width = len(str(self.total))
        rest = f", about {duration(self.left())} left" if self.done < self.total else ""
        return f"[{self.done:{width}}/{self.total}] {what}{rest}"

    def _show(self, what: str) -> None:
        if os.environ.get("DISTILBENCH_PROGRESS") == "lines" or not _in_notebook():
            print(self.line(what), flush=True)
            return
        from IPython.display import HTML, display

        bar = f'<progress value="{self.done}" max="{self.total}"></progress> {html.escape(self.line(what))}'
        if self._bar is None:
            self._bar = display(HTML(bar), display_id=True)
        else:
            self._bar.update(HTML(bar))


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a kernel has it: nobody else need wait for its import
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


# ------------------------------------------------------------------ the log


class JsonLines(logging.Formatter):
    """One JSON object per line: time (UTC), level, message, and the fields that `log_line` was given."""

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        when = self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ")
        known = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(known | getattr(record, "fields", {}))


def set_up_log(log_format: Literal["text", "json"], stream=None) -> None:
    """Sends distilbench's log to stderr (or `stream`): coloured in a terminal, plain elsewhere, JSON on request."""
    stream = stream or sys.stderr
    if log_format == "text" and stream.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def watched(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Calls `look` in a thread every so often while inside, and once more at the end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            look()

    # what is watched is started by the thread outside: a process ends with the thread that started it
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


def log_line(message: str, **fields: Any) -> None:
    """A line of the log, with fields for programs."""
    log.info(message, extra={"fields": fields})


@contextmanager
def progress_stream() -> Iterator[Any]:
    """A stream that takes what notebooks print: a bar in a terminal, log lines elsewhere."""
    if not any(type(handler).__name__ == "RichHandler" for handler in log.handlers):  # set up for terminals only
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Lines(bar)


class _Lines:
    """Cuts a stream into lines; progress lines become a bar or structured log lines, others are logged as they are."""

    def __init__(self, bar: Any = None) -> None:
        self.bar, self.rest = bar, ""

    def write(self, text: str) -> None:
        """Takes any piece of text."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._line(line)

    def flush(self) -> None:
        """Nothing is held back but the unfinished line."""

    def _line(self, line: str) -> None:
        matched = PROGRESS_LINE.match(line)
        if not matched:
            log_line(line.rstrip(), event="output")
            return
        done, total = int(matched[1]), int(matched[2])
        if self.bar is None:
            log_line(line, event="progress", done=done, total=total)
            return
        task = self.bar.task_ids[0] if self.bar.task_ids else self.bar.add_task("", total=total)
        self.bar.update(task, completed=done, total=total, description=matched[3])
