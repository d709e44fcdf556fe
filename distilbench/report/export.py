"""A run for other people's documents: Markdown, LaTeX and CSV, with the sentence to cite it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from distilbench.measurements.sweep.show import cell_tables
from distilbench.report import load, spread, tables
from distilbench.runs.folder import Run

citation = load.citation
#: Columns of the CSV: identity, then every measured number unrounded, with what `spread` says and n.
IDENTITY = ("run_id", "machine", "model_source", "variant", "device", "dtype", "length_policy", "batch_size", "state")
SAID = ("energy_source",)
NUMBERS = (
    "latency_ms", "latency_device_ms", "latency_per_sample_ms", "throughput_samples_per_s", "peak_rss_MiB",
    "peak_cuda_allocated_MiB", "peak_cuda_reserved_MiB", "energy_per_sample_J", "energy_net_per_sample_J",
)  # fmt: skip


def markdown(run: Run) -> str:
    """A pipe table; below, what its numbers are, and the citation."""
    table = load.table([run])
    return (
        f"{tables.markdown(cell_tables.measured(table))}\n\n{cell_tables.measured_caption(table)}.\n\n{citation(run)}"
    )


def latex(run: Run) -> str:
    """A booktabs table; its caption says what its numbers are, and is the citation."""
    table = load.table([run])
    frame = cell_tables.measured(table)
    style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    words = {"machine", "variant", "length", "state"}
    return style.to_latex(
        hrules=True,
        column_format="".join("l" if column in words else "r" for column in frame.columns),
        caption=_escaped(f"{cell_tables.measured_caption(table)}. {citation(run)}"),
        label=f"tab:{run.run_id}",
        position="htbp",
        position_float="centering",
    ).rstrip()


def _escaped(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text


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


def csv(run: Run) -> str:
    """As `frame`."""
    return frame(run).to_csv(index=False, lineterminator="\n").rstrip()


FORMATS: dict[str, Callable[[Run], str]] = {"md": markdown, "latex": latex, "csv": csv}
