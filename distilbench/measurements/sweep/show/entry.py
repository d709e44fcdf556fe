"""What a sweep shows, under the names by which general code asks for it.

Tables of several runs are those of `load.table`: one row per cell of each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from distilbench.measurements.sweep.show import (
    capacity,
    cell_tables,
    findings,
    lengths,
    optimal,
    plots,
    recommend,
    secondary_tables,
)
from distilbench.measurements.sweep.show.causes import causes
from distilbench.measurements.sweep.show.numbers import mark_of, numbers
from distilbench.measurements.sweep.show.slides import deck
from distilbench.report import load, spread
from distilbench.report import readings as of_processes
from distilbench.runs.folder import Run

__all__ = ["capacity", "causes", "deck", "mark_of", "numbers", "optimal", "recommend"]
PASSES = ("timing", "memory", "energy")
NOTE = """\
Latency is the median over repetitions of the median synchronised forward of one batch. Samples/s is total sentences
over total time."""
headline, reservation = cell_tables.headline, cell_tables.reservation
measured, caption = cell_tables.measured, cell_tables.measured_caption
sentences = findings.sentences


def cells(run: Run, summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell of a run's summary, as text, with what is cut as far as the run or its text tells."""
    data = run.data
    return cell_tables.cells({"cells": [cell | lengths.truncation(cell, data) for cell in summary["cells"]]})


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """The cells of a run: fields of its summary, one memory column, and what is cut.

    `peak_memory_MiB` is what limits the batch size on the device: GPU memory on CUDA, resident memory on CPU.
    """
    data = run.data
    for cell in run.summary["cells"]:
        yield _with_memory(cell) | lengths.truncation(cell, data)


def _with_memory(cell: dict[str, Any]) -> dict[str, Any]:
    source = "peak_cuda_allocated_MiB" if cell["device"].startswith("cuda") else "peak_rss_MiB"
    kinds = ("", "_range", "_interval_of_median", "_repetitions", "_reason")
    return cell | {f"peak_memory_MiB{kind}": cell.get(f"{source}{kind}") for kind in kinds}


def readings(run: Run, number: str, proof: Mapping[str, Any]) -> list[of_processes.Readings]:
    """What each process of each cell says of a number; accuracy is counted once, over the sentences of a cycle."""
    found = of_processes.of_records(run, number, proof)
    if number != "accuracy":
        return found
    counts = {cell["cell"]: (cell["accuracy"], cell.get("accuracy_n")) for cell in run.summary["cells"]}
    known = [(one, *counts[one.name]) for one in found if counts[one.name][1]]
    return [replace(one, counted=(round(share * n), n)) for one, share, n in known]


def about(run: Run) -> dict[str, str | int]:
    """What was measured: model, text, and how often."""
    params = run.config["parameters"]
    model, data = run.model, run.data
    return {
        "model": f"{model['name']}, {model['parameters']:,} parameters, {params['dtype']}",
        "source of the model": model["source"],
        "text": f"{data['name']}, {data['rows']:,} sentences",
        **_cycle(params),
        "fresh processes per cell": _passes(run),
    }


def _cycle(params: dict[str, Any]) -> dict[str, int]:
    """How long a cycle is, in what is equal for all cells."""
    batches = params.get("batches_per_cycle")
    return {"batches per cycle": batches} if batches else {"sentences per cycle": params["samples_per_cycle"]}


def title(run: Run) -> str:
    """What the run's model is called."""
    return run.model["name"]


def cited(run: Run) -> str:
    """What was measured, for a citation."""
    row = about(run)
    return f"{row['model']} ({row['source of the model']})"


def measured_with(run: Run) -> str:
    """What a caption says of it, after the machine."""
    params = run.config["parameters"]
    return f", {params['dtype']}; model: {title(run)} (source: {params['model_source']})"


def page_name(run: Run) -> str:
    """How its page is called where no other name is given: device and source of the model."""
    params = run.config["parameters"]
    return f"{params['device'].replace(':', '')}-{params['model_source']}"


def _passes(run: Run) -> str:
    """What each pass of a run has, and which pass it has not."""
    found, asked = load.processes(run), run.config["parameters"]["passes"]
    missing = {where: "nothing measured" if where in asked else "not asked for" for where in PASSES}
    forked = {record.pass_ for record in run.measured() if record.start == "forked"}
    how = {where: " (forked from one)" if where in forked else "" for where in PASSES}
    return "; ".join(f"{where}: {found.get(where, missing[where])}{how[where]}" for where in PASSES)


def subject(run: Run) -> list[str]:
    """What was measured, in a line each."""
    model, data = run.model, run.data
    return [
        f"model: {model['name']} ({model['parameters']:,} parameters, source {model['source']})",
        f"text: {data['name']} ({data['rows']} sentences, source {data['source']})",
    ]


def doubts(summary: dict[str, Any]) -> list[str]:
    """What was not measured, every doubt, and what control and nodes say."""
    more = [said for told in (secondary_tables.control, secondary_tables.nodes) if (said := told(summary))]
    return cell_tables.not_measured(summary) + cell_tables.doubts(summary) + more


def limitations(run: Run) -> list[str]:
    """What the run cannot say, one line each."""
    summary = run.summary
    intervals = secondary_tables.intervals(run)
    return [*([summary["note"]] if summary["note"] else []), *doubts(summary), *([intervals] if intervals else [])]


def figure_caption(run: Run, figure: str) -> str | None:
    """What a figure of a page shows; None where the run has nothing to show there."""
    return plots.caption(load.table([run]), plots.metric_of(figure))


# ------------------------------------------------------------------ unrounded, for other programs


#: Columns of the CSV: identity, then every measured number unrounded, with what `spread` says and n.
IDENTITY = ("run_id", "machine", "model_source", "variant", "device", "dtype", "length_policy", "batch_size", "state")
SAID = ("energy_source",)
NUMBERS = (
    "latency_ms", "latency_device_ms", "latency_per_sample_ms", "throughput_samples_per_s", "peak_rss_MiB",
    "peak_cuda_allocated_MiB", "peak_cuda_reserved_MiB", "energy_per_sample_J", "energy_net_per_sample_J",
)  # fmt: skip


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, numbers unrounded, with low and high end and n; what was not measured is empty.

    The ends are those of `spread`: they belong to the median beside them.
    """
    rows = []
    for cell in load.table([run]).to_dict("records"):
        row = {name: cell[name] for name in IDENTITY} | {name: cell.get(name) for name in SAID}
        for name in NUMBERS:
            low, high = spread.ends(cell, name) or (None, None)
            row |= {name: cell.get(name), f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_n"] = cell.get(f"{name}_repetitions")
        interval = cell.get("accuracy_wilson_95")
        low, high = interval if isinstance(interval, list) else (None, None)
        row |= {"accuracy": cell.get("accuracy"), "accuracy_n": cell.get("accuracy_n")}
        rows.append(row | {"accuracy_wilson_95_low": low, "accuracy_wilson_95_high": high})
    return pd.DataFrame(rows)
