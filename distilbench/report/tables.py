"""Tables of a run, with the doubts beside the numbers."""

from __future__ import annotations

import html
import re
from typing import Any

import pandas as pd

from distilbench.params import Resolved
from distilbench.report import spread

pd.set_option("display.max_colwidth", None)  # a shortened hash or reason is of no use in a notebook

COLUMNS = {
    "variant": "variant",
    "length_policy": "length",
    "batch_size": "batch size",
    "latency_ms": "latency (ms)",
    "throughput_samples_per_s": "samples/s",
    "throughput_steady_samples_per_s": "samples/s, queued",
    "peak_rss_MiB": "peak memory (MiB)",
    "peak_cuda_allocated_MiB": "peak GPU memory (MiB)",
    "padding_share": "padding",
    "truncated_share": "cut",
    "accuracy": "accuracy",
    "state": "state",
}


def parameters(resolved: Resolved, only: list[str] | None = None) -> pd.DataFrame:
    """Every parameter with its value, where the value came from, and what it means."""
    fields = type(resolved.params).model_fields
    rows = [
        (name, _shown(getattr(resolved.params, name)), resolved.origins[name], fields[name].description or "")
        for name in (only or fields)
    ]
    return pd.DataFrame(rows, columns=["parameter", "value", "from", "meaning"]).set_index("parameter")


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) if value != "" else "–"


def mapping(content: dict[str, Any], leave_out: list[str] | None = None) -> pd.DataFrame:
    """Names and values, one per row."""
    rows = [(name.replace("_", " "), _plain(value)) for name, value in content.items() if name not in (leave_out or [])]
    return pd.DataFrame(rows, columns=["what", "value"]).set_index("what")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _shown(list(value) if isinstance(value, tuple) else value) if value is not None else "–"


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table; the first column names them."""
    return pd.DataFrame(rows).set_index(next(iter(rows[0])))


def cells(summary: dict[str, Any]) -> pd.DataFrame:
    """One row per cell; numbers are medians over repetitions, as text, with what was not measured as a dash."""
    rows = [{shown: _number(name, cell.get(name)) for name, shown in COLUMNS.items()} for cell in summary["cells"]]
    table = pd.DataFrame(rows)
    names = ("throughput_steady_samples_per_s", "peak_cuda_allocated_MiB", "padding_share", "truncated_share")
    not_always = (COLUMNS[name] for name in names)
    return table.drop(columns=[column for column in not_always if (table[column] == "–").all()])


def _number(name: str, value: Any) -> str:
    if value is None or value != value:  # a column of several runs has NaN where one of them has nothing
        return "–"
    if name.endswith("_share"):
        return f"{value:.{1 if name == 'truncated_share' else 0}%}"
    if name == "latency_ms":
        return milliseconds(value)
    digits = {"throughput_samples_per_s": 1, "throughput_steady_samples_per_s": 1, "accuracy": 3}.get(name, 0)
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """As `cells`, of several runs (rows as `load.table` gives them), with what stands beside the latency (`spread`).

    Machine and variant are shown where they vary, states where one is not ok.
    """
    rows = table.to_dict("records")
    shown = cells({"cells": rows})
    shown.insert(4, "from–to (ms)", [_range(spread.ends(row, "latency_ms")) for row in rows])
    if table["machine"].nunique() > 1:
        shown.insert(0, "machine", table["machine"])
    untold = [
        name for name, usual in (("variant", shown["variant"][0]), ("state", "ok")) if (shown[name] == usual).all()
    ]
    return shown.drop(columns=untold)


def measured_caption(table: pd.DataFrame) -> str:
    """What the numbers of `measured` are, and what stands beside the latency."""
    beside = spread.in_words(table, "latency_ms")
    memory = spread.count_in_words(table, "peak_memory_MiB")
    said = f"Medians; beside the latency {beside}" if beside else "Nothing was timed"
    said += f"; memory over {memory}" if memory else ""
    counted = sorted(set(table["truncated_of"].dropna())) if "truncated_of" in table else []
    return said + (f"; cut: share of the sentences {' or '.join(counted)}" if counted else "")


def milliseconds(value: float) -> str:
    """As many decimals as the size of the number bears."""
    return f"{value:.{2 if value < 100 else 1 if value < 1000 else 0}f}"


def _range(ends: Any) -> str:
    return f"{milliseconds(ends[0])}–{milliseconds(ends[1])}" if isinstance(ends, list) else "–"


def efficiency(rows: pd.DataFrame) -> pd.DataFrame:
    """Efficiency against linear scaling, batch sizes across; the machine only where it varies."""
    if rows.empty:
        return pd.DataFrame({"efficiency": ["no cell at fixed length"]})
    wide = rows.pivot(index=["machine", "variant", "length_policy"], columns="batch_size", values="efficiency")
    shown = wide.map(lambda value: f"{value:.2f}" if pd.notna(value) else "–").reset_index()
    shown = shown.rename(columns={"length_policy": "length"}).rename_axis(columns=None)
    return shown if rows["machine"].nunique() > 1 else shown.drop(columns="machine")


def side_by_side(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """What several things are, one column each, named by their first field."""
    first = next(iter(rows[0]))
    return pd.DataFrame(rows).set_index(first).T.rename_axis(index=first, columns=None).reset_index()


class Table:
    """A captioned table: numbered and referable in the book, an ordinary one in JupyterLab and on code hosts.

    Args:
        frame: what to show; every value as text.
        caption: what it is, of what, on what.
        name: label for references; unique within the notebook.
        prose: cells hold text that may be broken into lines.
    """

    def __init__(self, frame: pd.DataFrame, caption: str, name: str, prose: bool = False) -> None:
        self.frame, self.caption, self.name = frame.astype(str).rename(columns=str), caption, name
        self.kind = "db-prose" if prose else "db-numbers"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        plain = self.frame.to_html(index=False, border=0, classes="db-table")
        plain = re.sub(r"<td>(\([\d.,]+\))</td>", r'<td><span class="db-grey">\1</span></td>', plain)
        captioned = plain.replace("<thead>", f"<caption>{html.escape(self.caption)}</caption>\n  <thead>", 1)
        options = f":name: {self.name}\n:class: {self.kind}"
        return {
            "text/markdown": f":::{{table}} {self.caption}\n{options}\n\n{markdown(self.frame)}\n:::",
            "text/html": captioned,
            "text/plain": f"{self.caption}\n\n{self.frame.to_string(index=False)}",
        }


def markdown(table: pd.DataFrame) -> str:
    """A pipe table; numbers to the right."""
    right = table.apply(lambda column: column.str.fullmatch(r"[(]?-?[\d.,–%]+[)]?").all())
    lines = ["| " + " | ".join(table.columns) + " |"]
    lines.append("| " + " | ".join("---:" if is_number else "---" for is_number in right) + " |")
    lines += ["| " + " | ".join(_escaped(row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text as a cell of a pipe table."""
    return text.replace("|", r"\|")


def _escaped(row: Any) -> list[str]:
    cells_ = [escaped(value) for value in row]
    return [re.sub(r"^(\([\d.,]+\))$", r'<span class="db-grey">\1</span>', value) for value in cells_]


def _length(policy: str) -> str:
    return (
        "with padding to the longest of each batch" if policy == "longest" else f"at {policy[6:]} tokens per sentence"
    )


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence."""
    best = summary["best_throughput"]
    if best is None:
        return "Nothing was measured."
    text = (
        f"Highest throughput {_length(best['length_policy'])}: batch size {best['batch_size']} with "
        f"{best['throughput_samples_per_s']:.1f} samples/s ({best['variant']}"
        f"{', unstable' if best.get('state') == 'unstable' else ''})"
    )
    return f"{text}; {summary['note']}." if summary["note"] else f"{text}."


def not_measured(summary: dict[str, Any]) -> list[str]:
    """What no cell of the run has, with the reason; one line per reason."""
    reasons: dict[str, list[str]] = {}
    for name in ("accuracy", "latency_ms", "latency_device_ms", "peak_rss_MiB", "peak_cuda_allocated_MiB", "energy_J"):
        if all(cell.get(name) is None for cell in summary["cells"]):
            reasons.setdefault(summary["cells"][0].get(f"{name}_reason") or "not measured", []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def doubts(summary: dict[str, Any]) -> list[str]:
    """All doubts of all cells; one that every cell has is said once, and so is one of every cell of a length policy."""
    cells_ = summary["cells"]
    everywhere = _shared(cells_)
    policies = {
        cell["length_policy"]: [c for c in cells_ if c["length_policy"] == cell["length_policy"]] for cell in cells_
    }
    of_policy = {policy: _shared(mine) for policy, mine in policies.items() if len(mine) > 1}
    said = [f"every cell: {doubt}" for doubt in everywhere]
    said += [f"{at}: {doubt}" for at, found in of_policy.items() for doubt in found if doubt not in everywhere]
    for cell in cells_:
        told = {*everywhere, *of_policy.get(cell["length_policy"], [])}
        said += [f"{cell['cell']}: {doubt}" for doubt in cell["doubts"] if doubt not in told]
    return said


def _shared(cells_: list[dict[str, Any]]) -> list[str]:
    """The doubts that all of these cells have."""
    lists = [cell["doubts"] for cell in cells_]
    return [doubt for doubt in (lists[0] if lists else []) if all(doubt in others for others in lists)]
