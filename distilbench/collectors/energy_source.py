"""What a source of energy readings is: joules of a window, and how fine they are."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from distilbench.errors import ImplausibleError


class Source(ABC):
    """Something that tells the joules between `begin` and `end`.

    Attributes:
        name: its name in records.
        scope: what it measures; only sources of one scope can be compared.
        parts: what it is made of.
        most_W: a window that says more is invalid; None where nothing is known.
    """

    name: str
    scope: str
    parts: list[str]
    most_W: float | None = None
    least_s = 0.0  # of a window, where the source is renewed slowly and does not say how slowly

    @abstractmethod
    def begin(self) -> None:
        """Starts a window."""

    @abstractmethod
    def end(self) -> float:
        """Joules since `begin`.

        Raises:
            ImplausibleError: this window's cannot be known; the next one's may be.
            DistilbenchError: the source does not measure any more.
        """

    def poll(self) -> None:  # noqa: B027 - most sources need nothing here
        """Called once a cycle in a window: a counter that starts again must be seen each time it does."""

    def abandon(self) -> None:  # noqa: B027 - nor here
        """Gives a window up."""

    def tick_ms(self) -> float | None:
        """Time between two updates; None where there is nothing that ticks."""
        return None

    def limit_W(self) -> float | None:
        """What the hardware may draw at most, as it is set; None where that cannot be read."""
        return None


class Counting(Source):
    """A source that counts on: the energy of a window is the difference of two readings.

    Attributes:
        went_back: what to say of a window in which it counted so many joules back.
    """

    went_back = "the counter went back by {:g} J"

    @abstractmethod
    def joules(self) -> float:
        """What it counted so far."""

    def begin(self) -> None:
        self._before = self.joules()

    def end(self) -> float:
        if (joules := self.joules() - self._before) < 0:
            raise ImplausibleError(self.went_back.format(-joules))
        return joules


def tick_ms(read: Callable[[], float], most_s: float = 1.0) -> float | None:
    """Time between two changes of a counter, by reading it all the while; None when it does not change twice."""
    deadline, changes, last = time.perf_counter() + most_s, [], read()  # two changes: the first may be any time off
    while len(changes) < 2 and time.perf_counter() < deadline:
        if (value := read()) != last:
            changes.append(time.perf_counter())
            last = value
    return (changes[1] - changes[0]) * 1e3 if len(changes) == 2 else None
