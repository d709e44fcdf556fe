"""Tables of a run, with the doubts beside the numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from distilbench.params import Resolved

pd.set_option("display.max_colwidth", None)  # a shortened hash or reason is of no use in a notebook

COLUMNS = {
    "variant": "variant",
    "length_policy": "length",
    "batch_size": "batch size",
    "latency_ms": "latency (ms)",
    "throughput_samples_per_s": "samples/s",
    "peak_rss_MiB": "peak memory (MiB)",
    "peak_cuda_allocated_MiB": "peak GPU memory (MiB)",
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
    if (table[COLUMNS["peak_cuda_allocated_MiB"]] == "–").all():
        table = table.drop(columns=COLUMNS["peak_cuda_allocated_MiB"])
    return table


def _number(name: str, value: Any) -> str:
    if value is None:
        return "–"
    digits = {"latency_ms": 2, "throughput_samples_per_s": 1, "accuracy": 3}.get(name, 0)
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def efficiency(rows: pd.DataFrame) -> pd.DataFrame:
    """Efficiency against linear scaling, batch sizes across."""
    if rows.empty:
        return pd.DataFrame({"efficiency": ["no cell at fixed length"]})
    wide = rows.pivot(index=["machine", "variant", "length_policy"], columns="batch_size", values="efficiency")
    return wide.map(lambda value: f"{value:.2f}" if pd.notna(value) else "–")


def markdown(table: pd.DataFrame) -> str:
    """A pipe table; numbers to the right."""
    right = table.apply(lambda column: column.str.fullmatch(r"[\d.–]+").all())
    lines = ["| " + " | ".join(table.columns) + " |"]
    lines.append("| " + " | ".join("---:" if is_number else "---" for is_number in right) + " |")
    lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


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
        f"{best['throughput_samples_per_s']:.1f} samples/s ({best['variant']})"
    )
    return f"{text}; {summary['note']}." if summary["note"] else f"{text}."


def not_measured(summary: dict[str, Any]) -> list[str]:
    """What no cell of the run has, with the reason; one line per reason."""
    reasons: dict[str, list[str]] = {}
    for name in ("accuracy", "latency_device_ms", "peak_cuda_allocated_MiB", "energy_J"):
        if all(cell.get(name) is None for cell in summary["cells"]):
            reasons.setdefault(summary["cells"][0].get(f"{name}_reason") or "not measured", []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def doubts(summary: dict[str, Any]) -> list[str]:
    """All doubts of all cells; one that every cell has is said once."""
    lists = [cell["doubts"] for cell in summary["cells"]]
    shared = [doubt for doubt in (lists[0] if lists else []) if all(doubt in others for others in lists)]
    own = [f"{cell['cell']}: {doubt}" for cell in summary["cells"] for doubt in cell["doubts"] if doubt not in shared]
    return [f"every cell: {doubt}" for doubt in shared] + own
