"""Two results of one variant each, side by side: a decoder as it is, and compressed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.errors import RunError
from distilbench.measurements.llm_speed.records import point_name
from distilbench.report.tables import markdown, milliseconds

TIMES = {"latency_ms": "latency", "ttft_ms": "to first token", "tpot_ms": "per token"}
POINT = ("phase", "batch_size", "context", "new_tokens")
SEPARATE = (
    "The two were measured one after the other, so the ratios have no interval: what drifts between them is in them. "
    "`distilbench run palu` measures both in turn."
)


def page(base: list[dict[str, Any]], palu: list[dict[str, Any]]) -> str:
    """A table of what both measured, in Markdown.

    Raises:
        RunError: they have no point in common.
    """
    of_base = {point_name(*(cell[name] for name in POINT)): cell for cell in base if cell.get("latency_ms")}
    rows = [
        row
        for cell in palu
        if cell.get("latency_ms") and (point := point_name(*(cell[name] for name in POINT))) in of_base
        for row in _rows(point, of_base[point], cell)
    ]
    if not rows:
        raise RunError("the two have no point in common: nothing can be compared")
    return f"# Baseline and compressed\n\n{markdown(pd.DataFrame(rows).astype(str))}\n\n{SEPARATE}\n"


def _rows(point: str, base: dict[str, Any], own: dict[str, Any]) -> list[dict[str, str]]:
    found = [
        {
            "point": point, "what": f"{what} (ms)", "baseline": milliseconds(base[name]),
            "compressed": milliseconds(own[name]), "ratio": f"{own[name] / base[name]:.3f}",
        }
        for name, what in TIMES.items()
        if base.get(name) and own.get(name)
    ]  # fmt: skip
    sizes = base["cache_bytes"], own["cache_bytes"]
    said = {"baseline": f"{sizes[0]:,}", "compressed": f"{sizes[1]:,}", "ratio": f"{sizes[1] / sizes[0]:.3f}"}
    return [*found, {"point": point, "what": "cache (bytes)"} | said]
