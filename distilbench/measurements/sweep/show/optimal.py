"""The batch size to measure next: the one with the best throughput of an earlier run in the same environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distilbench import paths
from distilbench.errors import ParameterError, RunError
from distilbench.machine import conditions, environment
from distilbench.measurements.sweep.show import findings
from distilbench.measurements.sweep.summary import join
from distilbench.report import load, spread
from distilbench.runs import find
from distilbench.runs.folder import Run

#: Of one machine or job among others of its kind: no reason why another batch size should be best.
OF_ONE = ("host", "visible GPUs", "GPU variables", "gpus")


@dataclass(frozen=True)
class Limits:
    """What a batch may take; None: as much as it likes.

    Attributes:
        latency_ms: for one batch; held against the high end of what stands beside the median (`spread`).
        memory_MiB: at its peak; resident memory of the process on a CPU, what torch allocated on a GPU.
        accuracy: what it must reach at least, of the sentences of a cycle; random weights have none.
    """

    latency_ms: float | None = None
    memory_MiB: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        """Refuses limits that nothing can keep.

        Raises:
            ParameterError: one is not above 0.
        """
        for name, value in (("--max-latency-ms", self.latency_ms), ("--max-memory-mib", self.memory_MiB)):
            if value is not None and value <= 0:
                raise ParameterError(f"{name} must be above 0, not {value:g}")
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise ParameterError(f"--min-accuracy must be above 0 and at most 1, not {self.accuracy:g}")

    def __str__(self) -> str:
        parts = {"ms": self.latency_ms, "MiB": self.memory_MiB}
        said = [f"{value:g} {unit}" for unit, value in parts.items() if value is not None]
        said += [f"an accuracy of at least {self.accuracy:g}"] if self.accuracy is not None else []
        return " and ".join(said)


NO_LIMITS = Limits()


def batch_size(study: str, device: str, results_root: str = "", limits: Limits = NO_LIMITS) -> tuple[int, str]:
    """The batch size with the best throughput within the limits, of the newest run in this environment; and why.

    Raises:
        RunError: no finished run was measured on this kind of machine, or with these versions; or none of its batch
            sizes keeps within the limits.
    """
    device = "cuda:0" if device == "cuda" else device
    run = _newest(study, device, results_root)
    cells = [cell for cell in run.kind.showing.rows(run) if cell["throughput_samples_per_s"] is not None]
    if not (best := join.best([cell for cell in cells if keeps(cell, limits)])):
        raise RunError(f"no batch size of run {run.run_id} keeps within {limits}: {least(cells, limits)}")
    profile = run.config["parameters"]["profile"]
    doubt = "" if profile == "full" else f"; profile {profile}: not for citation"
    within = f", the best within {limits}," if limits != NO_LIMITS else ""
    speed = f"{best['throughput_samples_per_s']:.1f} samples/s{findings.mark(best.get('state'))}"
    where = f"in run {run.run_id} on {load.label(run)}{doubt}"
    return best["batch_size"], f"batch size {best['batch_size']}: {speed}{within} {where}"


def _newest(study: str, device: str, results_root: str) -> Run:
    """The newest run that was measured in this environment."""
    now = environment.capture()
    machine, here = conditions.machine_of(now, device), conditions.key_of(now)
    changed: list[str] = []
    for run in reversed(find.all_runs(paths.results_root(results_root) / study)):
        params = run.config["parameters"]
        if params["profile"] == "ci" or params["device"] != device or not run.is_finished:
            continue
        if conditions.machine_of(run.env, device) != machine or not run.summary["best_throughput"]:
            continue
        left_out = (*conditions.left_out_on(device), *OF_ONE)
        if not (found := conditions.differences(conditions.key_of(run.env), here, left_out)):
            return run
        changed = changed or [f"run {run.run_id}, the newest there is, had another environment: {'; '.join(found)}"]
    why = changed or [f"no finished run of {study} on {device} was measured on this kind of machine ({machine})"]
    measure = f"measure one first (distilbench run {study} --device {device}), or name the batch sizes"
    raise RunError(f"{why[0]}: {measure}")


def keeps(cell: dict[str, Any], limits: Limits) -> bool:
    """Whether a cell keeps within the limits; what was not measured keeps within none."""
    if limits.accuracy is not None and not (cell.get("accuracy") or 0) >= limits.accuracy:
        return False
    asked = {"latency_ms": limits.latency_ms, "peak_memory_MiB": limits.memory_MiB}
    return all(limit is None or ((high := _high(cell, name)) is not None and high <= limit)
               for name, limit in asked.items())  # fmt: skip


def _high(cell: dict[str, Any], name: str) -> float | None:
    ends = spread.ends(cell, name)
    return ends[1] if ends else cell[name]


def least(cells: list[dict[str, Any]], limits: Limits) -> str:
    """The least that any cell takes; where one is asked for, the highest accuracy."""
    said = []
    for name, unit in (("latency_ms", "ms"), ("peak_memory_MiB", "MiB")):
        if known := [high for cell in cells if (high := _high(cell, name)) is not None]:
            said.append(f"{min(known):.4g} {unit}")
    found = [f"the least that any takes is {' and '.join(said)}"]
    if limits.accuracy is not None:
        known = [cell["accuracy"] for cell in cells if cell.get("accuracy") is not None]
        found.append(f"the highest accuracy is {max(known):.4f}" if known else "no accuracy was measured")
    return ", ".join(found)
