"""A run for other people's documents: Markdown, LaTeX and CSV, with the sentence to cite it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from distilbench.report import load, tables
from distilbench.runs import Run

citation = load.citation
#: Columns of the CSV: identity, then every measured number unrounded, with its range and number of repetitions.
IDENTITY = ("run_id", "machine", "model_source", "variant", "device", "dtype", "length_policy", "batch_size", "state")
SAID = ("energy_source",)
NUMBERS = (
    "latency_ms", "latency_device_ms", "latency_per_sample_ms", "throughput_samples_per_s", "peak_rss_MiB",
    "peak_cuda_allocated_MiB", "peak_cuda_reserved_MiB", "energy_per_sample_J", "energy_net_per_sample_J",
)  # fmt: skip


def markdown(run: Run) -> str:
    """A pipe table with the citation below."""
    return f"{tables.markdown(tables.measured(load.table([run])))}\n\n{citation(run)}"


def latex(run: Run) -> str:
    """A booktabs table; its caption is the citation."""
    frame = tables.measured(load.table([run]))
    style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    words = {"machine", "variant", "length", "state"}
    return style.to_latex(
        hrules=True,
        column_format="".join("l" if column in words else "r" for column in frame.columns),
        caption=_escaped(citation(run)),
        label=f"tab:{run.run_id}",
        position="htbp",
        position_float="centering",
    ).rstrip()


def _escaped(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text


def frame(run: Run) -> pd.DataFrame:
    """One row per cell, numbers unrounded, with ranges, intervals and n; what was not measured is empty."""
    rows = []
    for cell in load.table([run]).to_dict("records"):
        row = {name: cell[name] for name in IDENTITY} | {name: cell.get(name) for name in SAID}
        for name in NUMBERS:
            low, high = cell.get(f"{name}_range") if isinstance(cell.get(f"{name}_range"), list) else (None, None)
            row |= {name: cell.get(name), f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_n"] = cell.get(f"{name}_repetitions")
            interval = cell.get(f"{name}_interval_95")
            if isinstance(interval, list):
                row |= {f"{name}_interval_95_low": interval[0], f"{name}_interval_95_high": interval[1]}
        interval = cell.get("accuracy_wilson_95")
        low, high = interval if isinstance(interval, list) else (None, None)
        row |= {"accuracy": cell.get("accuracy"), "accuracy_n": cell.get("accuracy_n")}
        rows.append(row | {"accuracy_wilson_95_low": low, "accuracy_wilson_95_high": high})
    return pd.DataFrame(rows)


def csv(run: Run) -> str:
    """As `frame`."""
    return frame(run).to_csv(index=False, lineterminator="\n").rstrip()


FORMATS: dict[str, Callable[[Run], str]] = {"md": markdown, "latex": latex, "csv": csv}
