"""Two runs compared: per cell the ratio of medians with its interval, and a verdict that says no more than that."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd

from distilbench import paths
from distilbench.errors import RunError
from distilbench.machine import conditions
from distilbench.report import tables
from distilbench.runs.folder import Run
from distilbench.runs.states import MEASURED
from distilbench.stats import MIN_REPETITIONS, THRESHOLD, Verdict, ratio_interval, verdict_of

CONFIDENCE = 0.95  # of all verdicts of a comparison together
#: What a comparison may be about; a difference in it is said, not refused.
COMPARED = ("code", "distilbench")


@dataclass(frozen=True)
class Compared:
    """One cell in both runs: medians over repetitions in `unit`; `ratio` is other / base, of geometric means."""

    cell: str
    unit: str
    base: float
    other: float
    ratio: float
    low: float | None
    high: float | None
    verdict: Verdict
    note: str

    def as_json(self) -> dict[str, object]:
        """Its fields, with the unit in the names, as in `base_ms`."""
        names = {name: f"{name}_{self.unit.replace('/', '_per_')}" for name in ("base", "other")}
        return {names.get(name, name): value for name, value in vars(self).items() if name != "unit"}


def compare(base: Run, other: Run, threshold: float = THRESHOLD, force: bool = False) -> list[Compared]:
    """Every cell that both runs measured.

    With m cells each interval is a 1 - 0.05 / m one (Bonferroni), so that all verdicts together hold at 95 %.

    Raises:
        RunError: they have no cell in common, or were not made under the same conditions (unless `force`).
    """
    if (found := differences(base, other)) and not force:
        listed = "\n".join(f"- {line}" for line in found)
        raise RunError(f"runs {base.run_id} and {other.run_id} are not comparable (--force compares them):\n{listed}")
    one, two = _values(base), _values(other)
    shared = [cell["cell"] for cell in base.config["cells"] if cell["cell"] in one and cell["cell"] in two]
    if not shared:
        raise RunError(f"runs {base.run_id} and {other.run_id} have no measured cell in common")
    confidence = 1 - (1 - CONFIDENCE) / len(shared)
    unstable = {cell for run in (base, other) for cell, state in run.status["cells"].items() if state == "unstable"}
    ((name, _),) = base.kind.comparable.items()
    _, unit = tables.split_unit(name)
    found = []
    for cell in shared:
        interval = ratio_interval(one[cell], two[cell], confidence)
        low, high = interval or (None, None)
        notes = ["unstable"] if cell in unstable else []
        if interval is None:
            fewest = min(len(one[cell]), len(two[cell]))
            notes.insert(0, f"{fewest} repetitions: no interval (from {MIN_REPETITIONS} on)")
        ratio = float(np.exp(np.mean(np.log(two[cell])) - np.mean(np.log(one[cell]))))  # what the interval is of
        medians, verdict = (median(one[cell]), median(two[cell])), verdict_of(interval, threshold)
        found.append(Compared(cell, unit, *medians, ratio, low, high, verdict, ", ".join(notes)))
    return found


def _values(run: Run) -> dict[str, list[float]]:
    """Per cell (without its device) what each repetition says of the number that runs of its kind compare by."""
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
            f"base ({one.unit})": f"{one.base:.4g}",
            f"other ({one.unit})": f"{one.other:.4g}",
            "ratio": f"{one.ratio:.3f}",
            "interval": f"{one.low:.3f}–{one.high:.3f}" if one.low is not None else "–",
            "verdict": one.verdict + (f" ({one.note})" if one.note else ""),
        }
        for one in found
    ]
    return pd.DataFrame(rows)
