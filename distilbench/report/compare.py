"""Two runs compared: per cell the ratio of latencies with its interval, and a verdict that says no more than that."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from distilbench import paths
from distilbench.errors import RunError
from distilbench.machine import conditions
from distilbench.runs.folder import Run
from distilbench.runs.states import MEASURED
from distilbench.stats import MIN_REPETITIONS, THRESHOLD, Verdict, ratio_interval, verdict_of

CONFIDENCE = 0.95  # of all verdicts of a comparison together
#: What a comparison may be about; a difference in it is said, not refused.
COMPARED = ("code", "distilbench")


@dataclass(frozen=True)
class Compared:
    """One cell in both runs. Latencies in ms, medians over repetitions; `ratio` is other / base, of geometric means."""

    cell: str
    base_ms: float
    other_ms: float
    ratio: float
    low: float | None
    high: float | None
    verdict: Verdict
    note: str


def compare(base: Run, other: Run, threshold: float = THRESHOLD, force: bool = False) -> list[Compared]:
    """Every cell that both runs measured.

    With m cells each interval is a 1 - 0.05 / m one (Bonferroni), so that all verdicts together hold at 95 %.

    Raises:
        RunError: they have no cell in common, or were not made under the same conditions (unless `force`).
    """
    if (found := differences(base, other)) and not force:
        listed = "\n".join(f"- {line}" for line in found)
        raise RunError(f"runs {base.run_id} and {other.run_id} are not comparable (--force compares them):\n{listed}")
    one, two = _latencies(base), _latencies(other)
    shared = [cell["cell"] for cell in base.config["cells"] if cell["cell"] in one and cell["cell"] in two]
    if not shared:
        raise RunError(f"runs {base.run_id} and {other.run_id} have no measured cell in common")
    confidence = 1 - (1 - CONFIDENCE) / len(shared)
    unstable = {cell for run in (base, other) for cell, state in run.status["cells"].items() if state == "unstable"}
    found = [_compared(cell, one[cell], two[cell], threshold, confidence) for cell in shared]
    return [replace(cell, note=_joined(cell.note, "unstable")) if cell.cell in unstable else cell for cell in found]


def _joined(*notes: str) -> str:
    return ", ".join(note for note in notes if note)


def _compared(cell: str, base: list[float], other: list[float], threshold: float, confidence: float) -> Compared:
    interval = ratio_interval(base, other, confidence)
    base_ms, other_ms = float(pd.Series(base).median()), float(pd.Series(other).median())
    fewest = min(len(base), len(other))
    note = f"{fewest} repetitions: no interval (from {MIN_REPETITIONS} on)" if interval is None else ""
    low, high = interval or (None, None)
    ratio = float(np.exp(np.mean(np.log(other)) - np.mean(np.log(base))))  # what the interval is of
    return Compared(cell, base_ms, other_ms, ratio, low, high, verdict_of(interval, threshold), note)


def _latencies(run: Run) -> dict[str, list[float]]:
    """Per cell (without its device) what each repetition took, in ms: the number that runs of its kind compare by."""
    ((name, where),) = run.kind.comparable.items()
    found: dict[str, list[float]] = {}
    for record in run.finished().values():
        if record.pass_ == where and record.status in MEASURED and not record.control_of:
            found.setdefault(record.cell, []).append(getattr(record, name))
    return found


def differences(base: Run, other: Run) -> list[str]:
    """What two runs do not share and should: machine, software, text, model, type of weights, sentences."""
    found = _different_environment(base, other)
    settings = _different_fields(_settings(base), _settings(other))
    return [line for line in found if line.partition(":")[0] not in COMPARED] + settings + _different_work(base, other)


def tolerated_differences(base: Run, other: Run) -> list[str]:
    """What differs and may be what the comparison is about."""
    return [line for line in _different_environment(base, other) if line.partition(":")[0] in COMPARED]


def _settings(run: Run) -> dict[str, object]:
    threads = sorted({record.num_threads for record in run.finished().values() if record.num_threads})
    return {"threads": threads, "heap": run.config["parameters"].get("heap", "system")}


def _different_environment(base: Run, other: Run) -> list[str]:
    """What an early env.json does not hold, and GPUs where neither run used one, are no differences."""
    one, two = (conditions.key_of(run.env) for run in (base, other))
    on_cpu = {run.config["parameters"]["device"] for run in (base, other)} == {"cpu"}
    left_out = conditions.OF_GPUS if on_cpu else ()
    keys = tuple(key for key in one if key in two and key not in left_out)
    return _different_fields(one, two, keys)


def _different_work(base: Run, other: Run) -> list[str]:
    lines = []
    for file, keys in (("data.json", ("content_sha256", "tokenizer_sha256")), ("model.json", ("sha256",))):
        files = (run.folder / file for run in (base, other))
        one, two = (paths.read_json(file) if file.is_file() else {} for file in files)
        lines += [f"{file} {line}" for line in _different_fields(one, two, keys)]
    one, two = base.inputs_of_cells(), other.inputs_of_cells()
    cells = [cell for cell in one if cell in two and one[cell] != two[cell]]
    return lines + ([f"inputs: other batches in {', '.join(cells)}"] if cells else [])


def _different_fields(one: dict, two: dict, keys: tuple[str, ...] = ()) -> list[str]:
    return [f"{key}: {one.get(key)!r} and {two.get(key)!r}" for key in keys or one if one.get(key) != two.get(key)]


def table(found: list[Compared]) -> pd.DataFrame:
    """For a terminal: one row per cell, every value as text."""
    rows = [
        {
            "cell": one.cell,
            "base (ms)": f"{one.base_ms:.4g}",
            "other (ms)": f"{one.other_ms:.4g}",
            "ratio": f"{one.ratio:.3f}",
            "interval": f"{one.low:.3f}–{one.high:.3f}" if one.low is not None else "–",
            "verdict": one.verdict + (f" ({one.note})" if one.note else ""),
        }
        for one in found
    ]
    return pd.DataFrame(rows)
