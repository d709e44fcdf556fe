"""baseline_summary_report.txt: the six questions of a baseline, each with its answer first."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import jinja2

from distilbench.measurements.sweep.show import findings
from distilbench.report import doubts, load
from distilbench.runs.folder import Run
from distilbench.stats import MIN_REPETITIONS

WIDTH = 100
Row = dict[str, Any]
TEMPLATE = """\
BASELINE: {{ m.model.name }}
{{ m.machine }}, {{ m.device }}
Run {{ m.run_id }}, {{ m.measured[:10] }}
Profile {{ m.profile }}

1. WHAT DOES IT COST?
{{ first }}

2. WHICH BATCH SIZE IS BEST?
{{ best }}

3. WHAT BOUNDS IT, AND WHICH OPERATIONS ARE SLOW?
{{ bounds }}

4. HOW MUCH MEMORY DOES IT TAKE?
{{ memory }}

5. IS IT RIGHT?
{{ accuracy }}

6. HOW DOES IT SCALE?
{{ scaling }}

BATCH SIZES
{{ table }}

EXPECTED, QUOTED, MEASURED
{{ quoted }}

WHAT TO TRY NEXT
{{ advice }}

WHAT THIS RUN CANNOT SAY
{{ doubts }}
"""


def text(run: Run, metrics: Row, quoted: Sequence[Row] = ()) -> str:
    """The report.

    Args:
        run: finished.
        metrics: of it (`metrics.metrics`).
        quoted: what others say: `what`, `quoted`, `source`, `measured`, `verdict`.
    """
    cells = metrics["batch_sizes"]
    sections = {one.kind.name: one for one in run.sections}
    parts = {
        "first": "\n".join(map(_cost, _ends(cells, metrics["best_batch_size"]))) or "Nothing was measured.",
        "best": _best(cells, metrics["best_batch_size"]),
        "bounds": _said_by(sections, "profiling", "No profile was taken."),
        "memory": _memory(metrics),
        "accuracy": _said_by(sections, "evaluation", "It was not evaluated on the whole data set."),
        "scaling": "\n".join(findings.sentences(load.table([run]))) or "One batch size only: nothing to compare.",
        "table": _table([_shown(cell) for cell in cells]),
        "quoted": _table(list(quoted)) if quoted else "No figures of others are on trial for this run.",
        "advice": "\n".join(advice(run)) or "Nothing follows without a verdict on what bounds a forward.",
        "doubts": "\n".join(_doubts(run)),
    }
    wrapped = {name: part if name in ("table", "quoted") else _wrapped(part) for name, part in parts.items()}
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(TEMPLATE)
    return template.render(m=metrics, **wrapped)


def advice(run: Run) -> list[str]:
    """What follows from the verdicts of the run and its sections."""
    return [line for one in (run, *run.sections) for line in one.kind.showing.advice(one.summary)]


def _ends(cells: list[Row], best: int | None) -> list[Row]:
    """One sentence at a time, or the smallest batch, and the best size."""
    smallest = min((cell["batch_size"] for cell in cells), default=None)
    return [cell for cell in cells if cell["batch_size"] in (smallest, best)]


def _doubts(run: Run) -> list[str]:
    """By cause, those of the sections after the run's own."""
    command = f"distilbench show {run.run_id} --doubts"
    return doubts.lines([cause for one in (run, *run.sections) for cause in load.causes(one)], command)


def _cost(cell: Row) -> str:
    low, high = cell["latency_per_batch_ms_low"], cell["latency_per_batch_ms_high"]
    interval = f" ({low:.4g} to {high:.4g})" if cell["processes"] >= MIN_REPETITIONS else ""
    return (
        f"{cell['length_policy']}, {cell['variant']}, batch size {cell['batch_size']}: "
        f"{cell['latency_per_batch_ms']:.4g} ms a batch{interval}, "
        f"{cell['latency_per_sample_ms']:.4g} ms a sample, {cell['throughput_samples_per_s']:.4g} samples/s."
    )


def _best(cells: list[Row], best: int | None) -> str:
    if best is None:
        return "Nothing was measured."
    chosen = max((c for c in cells if c["batch_size"] == best), key=lambda c: c["throughput_samples_per_s"])
    mark = findings.mark(chosen["state"])
    speed = f"{chosen['throughput_samples_per_s']:.4g} samples/s{mark}"
    return f"{best}, of those measured: {speed} at {chosen['length_policy']}."


def _memory(metrics: Row) -> str:
    model = metrics["model"]
    disk = model["size_on_disk_MiB"]
    on_disk = f"{disk:.0f} MiB on disk" if disk is not None else model["size_on_disk_MiB_reason"]
    held = f", {model['size_in_memory_MiB']:.0f} MiB in memory" if model["size_in_memory_MiB"] is not None else ""
    peaks = [cell for cell in metrics["batch_sizes"] if cell["peak_memory_MiB"] is not None]
    said = [f"{model['parameters_M']:.1f} million parameters, {on_disk}{held}."]
    if not peaks:
        return f"{said[0]} The peak was not measured: {_reasons(metrics['batch_sizes'])}."
    most = max(peaks, key=lambda cell: cell["peak_memory_MiB"])
    said.append(
        f"At most {most['peak_memory_MiB']:.0f} MiB at batch size {most['batch_size']} ({most['peak_memory_of']})."
    )
    return " ".join(said)


def _reasons(cells: list[Row]) -> str:
    return "; ".join(dict.fromkeys(str(cell["peak_memory_MiB_reason"]) for cell in cells)) or "nothing was measured"


def _said_by(sections: dict[str, Run], kind: str, otherwise: str) -> str:
    if kind not in sections:
        return otherwise
    section = sections[kind]
    showing = section.kind.showing
    other = load.other_model(section)
    of = [f"Of {other}:"] if other else []
    return "\n".join([*of, showing.headline(section.summary), *showing.sentences(load.table([section]))])


def _shown(cell: Row) -> Row:
    peak, share = cell["peak_memory_MiB"], cell["roofline_share"]
    return {
        "batch size": str(cell["batch_size"]),
        "length": cell["length_policy"],
        "variant": cell["variant"],
        "ms/batch": f"{cell['latency_per_batch_ms']:.4g}",
        "ms/sample": f"{cell['latency_per_sample_ms']:.4g}",
        "samples/s": f"{cell['throughput_samples_per_s']:.4g}",
        "batches/s": f"{cell['throughput_batches_per_s']:.4g}",
        "peak MiB": "-" if peak is None else f"{peak:.0f}",
        "of the roofline": "-" if share is None else f"{share:.0%}",
        "processes": str(cell["processes"]),
        "state": cell["state"],
    }


def _table(rows: list[Row]) -> str:
    """Plain text in columns."""
    if not rows:
        return "Nothing was measured."
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _wrapped(text: str) -> str:
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False) for line in text.split("\n")
    )
