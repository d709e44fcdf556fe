"""Progress of long work: lines in a log or for a program that draws them, a bar in a notebook."""

from __future__ import annotations

import html
import os
import time
from dataclasses import dataclass, field


def duration(seconds: float) -> str:
    """For people: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class Progress:
    """Counts steps; the estimate of what is left is the median step so far times the steps left.

    Attributes:
        total: steps in all.
        done: steps finished, those of an earlier start included.
    """

    total: int
    done: int = 0
    _seconds: list[float] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _bar: object = None

    def step(self, what: str) -> None:
        """One step is finished; says so."""
        now = time.monotonic()
        self._seconds.append(now - self._began)
        self._began, self.done = now, self.done + 1
        self._show(what)

    def left(self) -> float:
        """Seconds that the rest will take, at the median pace so far."""
        ordered = sorted(self._seconds)
        return ordered[len(ordered) // 2] * (self.total - self.done) if ordered else 0.0

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
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None
