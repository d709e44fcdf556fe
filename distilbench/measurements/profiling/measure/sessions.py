"""Sessions of torch.profiler: one for times and memory, one for call stacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distilbench import paths
from distilbench.machine.device import synchronize
from distilbench.measurements.profiling.measure.trace import FORWARD, NULL

NULLS = 24  # null operators per step
#: What a trace says of the machine and its paths is nobody's business, and in env.json where it matters.
KEPT = ("schemaVersion", "deviceProperties", "displayTimeUnit", "baseTimeNanoseconds", "traceEvents")


@dataclass(frozen=True)
class Schedule:
    """Steps of a session.

    Attributes:
        wait: without the profiler. The first step after a pause has cold caches.
        warmup: recorded and thrown away: the profiler itself is slow at first (buffers, on a GPU the start of CUPTI),
            and that time would stand in the trace as the model's.
        active: in the trace.
    """

    wait: int
    warmup: int
    active: int

    @property
    def steps(self) -> int:
        """All of them."""
        return self.wait + self.warmup + self.active


#: Times and memory. Without stacks: to follow Python's calls makes these several times as long, and dispatch would seem
#: to be all.
OPERATORS = {"record_shapes": True, "profile_memory": True}


def stacks() -> dict[str, Any]:
    """Calls of Python. Without `verbose` the profiler keeps no stacks, and a file of them would be empty."""
    return {"with_stack": True, "experimental_config": torch._C._profiler._ExperimentalConfig(verbose=True)}


def session(
    file: Path,
    schedule: Schedule,
    steps: Iterable[Callable[[], Any]],
    device: torch.device,
    recorded: dict[str, Any],
    tools: Any = torch.profiler,
) -> None:
    """Profiles forwards, and writes the trace.

    Args:
        file: of the trace.
        steps: a forward each; as many as the schedule has are taken.
        recorded: what of them: `OPERATORS`, or `stacks()`.
    """
    activities = [tools.ProfilerActivity.CPU, *([tools.ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    plan = tools.schedule(wait=schedule.wait, warmup=schedule.warmup, active=schedule.active, repeat=1)
    one, result = torch.ones(1), torch.empty(1)
    with torch.inference_mode(), tools.profile(activities=activities, schedule=plan, **recorded) as profiler:
        for _, step in zip(range(schedule.steps), steps, strict=False):
            with tools.record_function(FORWARD):
                step()
                synchronize(device)  # within the annotation: it must hold the kernels that the forward queued
            with tools.record_function(NULL):
                for _ in range(NULLS):
                    torch.add(one, one, out=result)
            profiler.step()
    raw = file.with_suffix(".raw")
    profiler.export_chrome_trace(str(raw))
    content = json.loads(raw.read_text(encoding="utf-8", errors="replace"))
    raw.unlink()
    kept = {name: content[name] for name in KEPT if name in content}
    paths.write_atomic(file, json.dumps(kept, separators=(",", ":")))


def snapshot(file: Path, step: Callable[[], Any], device: torch.device, cuda: Any = None) -> str | None:
    """On a GPU: every block of its memory over one forward, for pytorch.org/memory_viz; why there is none elsewhere."""
    if device.type != "cuda":
        return "the model ran on the CPU"
    cuda = cuda or torch.cuda
    cuda.synchronize(device)
    cuda.memory._record_memory_history(max_entries=100_000)
    try:
        step()
        cuda.synchronize(device)
        cuda.memory._dump_snapshot(str(file))
    finally:
        cuda.memory._record_memory_history(enabled=None)
    return None
