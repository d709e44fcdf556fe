"""Pictures of decoders: the time of a prompt, of a token, and the bytes of a cache, by context and variant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from distilbench.measurements.llm_speed.records import DECODE, PREFILL
from distilbench.report import charts
from distilbench.report.charts import PALETTE, NotMeasured, Shown, _config, _rounded
from distilbench.runs.folder import Run

if TYPE_CHECKING:
    import altair as alt

MiB = 2**20
PROMPT, TOKEN, CACHE = "prefill", "per-token", "cache"
CAPTIONS = {
    PROMPT: "Time to read prompts, by their length, for each variant and batch size.",
    TOKEN: "Time of each token after the first, by the length of the prompt, for each variant and batch size.",
    CACHE: "Bytes of the cache after a generation, counted from its tensors, by the length of the prompt.",
}


Cells = list[dict[str, Any]]


def prompt(run: Run) -> Shown | NotMeasured:
    """The time of a prefill by the length of the prompt."""
    return _prompt(run.summary["cells"])


def token(run: Run) -> Shown | NotMeasured:
    """The time of a token by the length of the prompt, of the longest generations."""
    return _token(run.summary["cells"])


def cache(run: Run) -> Shown | NotMeasured:
    """The cache's size by the length of the prompt, of the longest generations."""
    return _cache(run.summary["cells"])


def _prompt(cells: Cells) -> Shown | NotMeasured:
    return _picture(cells, PREFILL, "latency_ms", "Time of a prefill (ms)")


def _token(cells: Cells) -> Shown | NotMeasured:
    return _picture(cells, DECODE, "tpot_ms", "Time per token (ms)")


def _cache(cells: Cells) -> Shown | NotMeasured:
    return _picture(cells, DECODE, "cache_MiB", "Cache (MiB)")


def _rows(every: Cells, phase: str, field: str) -> pd.DataFrame:
    cells = [cell for cell in every if cell["phase"] == phase and cell.get("latency_ms")]
    longest = max((cell["new_tokens"] for cell in cells), default=0)
    return pd.DataFrame(
        {
            "series": f"{cell['variant']}, batch {cell['batch_size']}",
            "variant": cell["variant"],
            "batch": cell["batch_size"],
            "context": cell["context"],
            "value": _rounded(cell["cache_bytes"] / MiB if field == "cache_MiB" else cell[field]),
        }
        for cell in cells
        if cell["new_tokens"] == longest
    )


def _picture(cells: Cells, phase: str, field: str, title: str) -> Shown | NotMeasured:
    table = _rows(cells, phase, field)
    if table.empty:
        return NotMeasured(title, ["no cell of this phase was measured"])
    ends = table.sort_values("context").groupby("series", sort=False).last()
    words = "; ".join(f"{name} {row['value']:.4g} at {row['context']}" for name, row in ends.iterrows())
    return Shown(_chart(table, title), f"{title} by tokens of the prompt: {words}.")


def _chart(table: pd.DataFrame, title: str) -> alt.Chart:
    import altair as alt

    names = list(table["series"].unique())
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(names))]
    drawn = (
        alt.Chart(table)
        .mark_line(point=True)
        .encode(
            x=alt.X("context:Q", title="Tokens of the prompt", axis=alt.Axis(values=sorted(set(table["context"])))),
            y=alt.Y("value:Q", title=title),
            color=alt.Color(
                "series:N",
                scale=alt.Scale(domain=names, range=colours),
                legend=alt.Legend(orient="top", title=None, columns=2, labelLimit=300),
            ),
            strokeDash=alt.StrokeDash(
                "variant:N",
                scale=alt.Scale(domain=["baseline", "palu", "palu-v"], range=[[1, 0], [6, 4], [2, 2]]),
                legend=None,
            ),
            tooltip=["series:N", "context:Q", alt.Tooltip("value:Q", title=title, format=".4~g")],
        )
    )
    return drawn.properties(width=560, height=260).configure(**_config())


MAKERS: dict[str, Callable[[Cells], Shown | NotMeasured]] = {PROMPT: _prompt, TOKEN: _token, CACHE: _cache}


def caption(run: Run, figure: str) -> str | None:
    """What a picture shows; None where there is none."""
    for name, text in CAPTIONS.items():
        phase = PREFILL if name == PROMPT else DECODE
        if figure.endswith(f"-{name}") and not _rows(run.summary["cells"], phase, "cache_MiB").empty:
            return text
    return None


def save(run: Run, folder: Path) -> list[Path]:
    """Writes the pictures as SVG and PNG into `folder`."""
    return save_of(run.summary["cells"], folder)


def save_of(cells: Cells, folder: Path) -> list[Path]:
    """The same of cells, which may be those of several runs."""
    return charts.save({name: make(cells) for name, make in MAKERS.items()}, folder)
