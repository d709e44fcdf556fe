"""The pictures of the slides: plots of the report over published runs, with larger text."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.errors import RunError
from distilbench.measurements.sweep.show import lengths as show_lengths
from distilbench.measurements.sweep.show import plots
from distilbench.report import charts, load
from distilbench.runs.folder import Run


def pictures(small: Run, large: Run, kept: Run, lengths: dict[str, str]) -> dict[str, charts.Shown]:
    """The pictures by name.

    Args:
        small, large, kept: runs of the model half as wide, of the real size, and of the first with a kept heap.
        lengths: length policies: `short` and `long` are fixed ones, `padded` pads to the longest of a batch.
    """
    models = {"Half as wide, real weights": small, "Real size, random weights": large}
    heaps = {"Heap as it is": small, "Heap kept": kept}
    short, long, padded = (lengths[name] for name in ("short", "long", "padded"))
    return {
        "processes": processes(small, [short, long]),
        "throughput": chart(models, [short], "throughput_samples_per_s"),
        "latency": chart(models, [short], "latency_ms"),
        "padding": chart({load.label(small): small}, [short, padded], "throughput_samples_per_s"),
        "heap": chart(heaps, [long], "throughput_samples_per_s"),
        "memory": chart({load.label(small): small}, [short, long, padded], "peak_memory_MiB"),
    }


def chart(chosen: dict[str, Run], policies: list[str], column: str) -> charts.Shown:
    """One of the report's plots over runs, each under a name of its own, at some lengths only.

    Raises:
        RunError: no run has that metric there.
    """
    table = pd.concat([load.table([run]).assign(machine=name) for name, run in chosen.items()])
    plotted = plots.plot(table[table["length_policy"].isin(policies)], column)
    if isinstance(plotted, charts.NotMeasured):
        raise RunError(f"the slides need {column} at {', '.join(policies)}: {plotted.text}")
    return charts.Shown(_for_a_screen(plotted.drawn), plotted.alt_text, plotted.note)


def processes(run: Run, policies: list[str]) -> charts.Shown:
    """What equal processes differ by: each one's median latency over that of its cell, by batch size."""
    import altair as alt

    table = load.table([run])
    table = table[table["length_policy"].isin(policies)].set_index("cell")
    rows = []
    for record in run.measured():
        if record.pass_ == "timing" and record.cell in table.index:
            cell = table.loc[record.cell]
            ratio = round(record.latency_ms / cell["latency_ms"], 4)
            point = {"length": cell["length_policy"], "ratio": ratio, "state": cell["state"]}
            rows.append({"batch_size": int(cell["batch_size"])} | point)
    points = pd.DataFrame(rows)
    length = {"title": None, "scale": alt.Scale(domain=policies, range=charts.PALETTE)}
    drawn = (
        alt.Chart(points)
        .mark_point(filled=True, size=70, opacity=0.7)
        .encode(
            x=alt.X("batch_size:O", title="Batch size (sentences per forward pass)", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("length:N", scale=alt.Scale(domain=policies)),
            y=alt.Y("ratio:Q", title="Median latency of a process / of its cell", scale=alt.Scale(zero=False)),
            color=alt.Color("length:N", **length),
            stroke=alt.Stroke("length:N", **length),
            fillOpacity=charts.hollow(),
            shape=alt.Shape("length:N", title=None, scale=alt.Scale(domain=policies)),
        )
        .properties(width=460, height=280)
    )
    low, high = points["ratio"].min(), points["ratio"].max()
    alt_text = f"Median latency of each process over that of its cell: from {low:.2f} to {high:.2f}."
    return charts.Shown(_for_a_screen(drawn), alt_text, (charts.marks(table) + show_lengths.warning(table)).rstrip())


def _for_a_screen(drawn: Any) -> Any:
    """With text large enough to be read from the last row, in a font that vl-convert brings along.

    It draws no text at all, and does not say so, in a font that the machine has not.
    """
    sizes = {"labelFontSize": 16, "titleFontSize": 16}
    styled = drawn.configure(font="Liberation Sans, sans-serif").configure_view(stroke=None)
    styled = styled.configure_axis(**sizes, titleFontWeight="normal", gridOpacity=0.4)
    return styled.configure_legend(**sizes, orient="top")
