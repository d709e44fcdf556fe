"""What a Chrome trace of torch.profiler says: calls of operators, kernels, allocations. A pure function of the file.

The worker reads its trace by this, and `verify` reads it again: no table of torch's own has to be believed.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilbench.errors import RunError
from distilbench.runs.rawfiles import read_committed

#: Names of the annotations that the session puts around its work; Perfetto shows them.
FORWARD, NULL = "distilbench: forward", "distilbench: null operators"
OPERATOR, PYTHON, ANNOTATION = "cpu_op", "python_function", "user_annotation"
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
ALLOCATION = "[memory]"  # name of an event
HOST, CUDA = 0, 1  # `Device Type` of an allocation


@dataclass(eq=False)
class Call:
    """A call on the host's thread: of an operator, of a Python function, or an annotation around others.

    Attributes:
        name: of what was called.
        kind: OPERATOR, PYTHON or ANNOTATION.
        start_us, end_us: since the start of the trace.
        args: what the trace says of it (dimensions and types of its inputs, its number).
        parent: the call that it was made in.
        inner_us: time of the calls that it made.
        kernels: name and time in µs of each kernel that it launched.
        allocated: bytes.
    """

    name: str
    kind: str
    start_us: float
    end_us: float
    args: dict[str, Any]
    parent: Call | None = None
    inner_us: float = 0.0
    allocated: int = 0
    kernels: list[tuple[str, float]] = field(default_factory=list)

    @property
    def duration_us(self) -> float:
        """From its start to its end."""
        return self.end_us - self.start_us

    @property
    def self_us(self) -> float:
        """Without what it called; the clock's rounding must not make it negative."""
        return max(0.0, self.duration_us - self.inner_us)

    @property
    def kernels_us(self) -> float:
        """Time of the kernels that it launched."""
        return sum(us for _, us in self.kernels)

    def ancestors(self) -> Iterator[Call]:
        """The calls around it, from the inside out."""
        call = self.parent
        while call:
            yield call
            call = call.parent


@dataclass(frozen=True)
class Allocation:
    """Memory taken (positive) or given back (negative)."""

    at_us: float
    address: int
    size: int
    device: int
    call: Call | None


@dataclass(frozen=True)
class Window:
    """One forward (or one series of null operators): the annotation, the operators in it, what they allocated."""

    around: Call
    calls: list[Call] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    kernels: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Trace:
    """The forwards of the active steps, the null operators beside them, and whether a GPU worked."""

    forwards: list[Window]
    nulls: list[Window]
    on_gpu: bool


def read(file: Path) -> Trace:
    """Reads a trace.

    Raises:
        RunError: it is no trace, or has no forward in it.
    """
    events = load(file)
    try:
        return parse(events)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} is no trace of a profile: {error!r}") from None


def load(file: Path) -> list[dict[str, Any]]:
    """The events of a trace.

    Raises:
        RunError: it is no trace.
    """
    try:
        return json.loads(read_committed(file))["traceEvents"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is no trace of a profile: {error!r}") from None


def parse(events: list[dict[str, Any]]) -> Trace:
    """As `read`, of the list of events.

    Raises:
        ValueError: no forward is in it.
    """
    base = min((event["ts"] for event in events if event.get("cat") == ANNOTATION), default=0.0)
    marks, thread, kinds = _marks(events), main_thread(events), (OPERATOR, PYTHON)
    own = [event for event in events if event.get("cat") in kinds and event["tid"] == thread] + marks
    calls = _nested(own, base)
    windows = {call: Window(call) for call in calls if call.name in (FORWARD, NULL)}
    for call in calls:
        if call.kind != ANNOTATION and (around := next((c for c in call.ancestors() if c in windows), None)):
            windows[around].calls.append(call)
    _add_allocations(events, base, calls, list(windows.values()))
    _add_kernels(events, base, list(windows.values()))
    found = sorted(windows.values(), key=lambda window: window.around.start_us)
    forwards, nulls = ([w for w in found if w.around.name == name] for name in (FORWARD, NULL))
    return Trace(forwards, nulls, any(window.kernels for window in forwards))


def main_thread(events: list[dict[str, Any]]) -> Any:
    """The thread of the forwards: what autograd or a data loader does on others is no part of them.

    Raises:
        ValueError: no forward is in it.
    """
    marks = _marks(events)
    if not any(event["name"] == FORWARD for event in marks):
        raise ValueError(f"no annotation {FORWARD!r} is in it")
    return marks[0]["tid"]


def _marks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event.get("cat") == ANNOTATION and event["name"] in (FORWARD, NULL)]


def _nested(events: list[dict[str, Any]], base: float) -> list[Call]:
    """Calls in order of their start, each with its parent: the innermost call that is still going on."""
    calls = [
        Call(e["name"], e["cat"], e["ts"] - base, e["ts"] - base + e["dur"], e.get("args", {}))
        for e in sorted(events, key=lambda event: (event["ts"], -event["dur"]))
    ]
    going_on: list[Call] = []
    for call in calls:
        while going_on and going_on[-1].end_us <= call.start_us:
            going_on.pop()
        call.parent = going_on[-1] if going_on else None
        if call.parent:
            call.parent.inner_us += call.duration_us
        going_on.append(call)
    return calls


def _add_allocations(events: list[dict[str, Any]], base: float, calls: list[Call], windows: list[Window]) -> None:
    starts = [call.start_us for call in calls]
    memory = [event for event in events if event.get("name") == ALLOCATION]
    for event in sorted(memory, key=lambda event: event["ts"]):
        at, args = event["ts"] - base, event["args"]
        call = _call_at(calls, starts, at)
        window = next((w for w in windows if w.around.start_us <= at < w.around.end_us), None)
        if window is None:
            continue
        taken = Allocation(at, args["Addr"], args["Bytes"], args["Device Type"], call)
        window.allocations.append(taken)
        if call and taken.size > 0:
            call.allocated += taken.size


def _call_at(calls: list[Call], starts: list[float], at: float) -> Call | None:
    """The innermost operator at that time."""
    before = bisect_right(starts, at) - 1
    call = calls[before] if before >= 0 else None
    while call and (call.end_us < at or call.kind != OPERATOR):
        call = call.parent
    return call


def _add_kernels(events: list[dict[str, Any]], base: float, windows: list[Window]) -> None:
    """Kernels belong to the operator that launched them, by its number, whenever they run."""
    by_number = {call.args.get("External id"): (window, call) for window in windows for call in window.calls}
    for event in events:
        if event.get("cat") in ON_GPU and (found := by_number.get(event.get("args", {}).get("External id"))):
            window, call = found
            call.kernels.append((event["name"], event["dur"]))
            window.kernels.append((event["ts"] - base, event["ts"] - base + event["dur"]))


def busy_us(spans: list[tuple[float, float]]) -> float:
    """How long at least one of the spans lasted: kernels of several streams overlap."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def folded(trace: Trace) -> list[tuple[str, int]]:
    """Call stacks of operators with their own time in µs, the longest first: `outer;inner;operator`.

    The format of flame graphs. Stacks begin within the forward: what drives the session is no part of it.
    """
    totals: dict[str, float] = {}
    for window in trace.forwards:
        for call in (call for call in window.calls if call.kind == OPERATOR):
            names = [call.name]
            for outer in call.ancestors():
                if outer.kind == ANNOTATION:
                    break
                names.append(outer.name)
            stack = ";".join(name.replace(";", ",") for name in reversed(names))
            totals[stack] = totals.get(stack, 0.0) + call.self_us
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [(stack, round(us)) for stack, us in ordered if round(us)]
