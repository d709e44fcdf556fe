"""Tables of a run, with the doubts beside the numbers."""

from __future__ import annotations

import html
import re
from typing import Any

import pandas as pd

from distilbench.runs.parameters import Resolved

DASH = "–"  # where there is no number
UNIT = re.compile(r"(.+?)_((?:[mun]?s|min|h|[mk]?[JW]|kWh|[kMGT]?i?B|[MG]Hz|[a-z]+_per_\w+)(?:_per_\w+)?)")
pd.set_option("display.max_colwidth", None)  # a shortened hash or reason is of no use in a notebook


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


def heading(name: str) -> str:
    """A field as a table calls it, its unit in brackets: `copy_ms` is "copy (ms)"."""
    what, unit = split_unit(name)
    return f"{what.replace('_', ' ')} ({unit})" if unit else what.replace("_", " ")


def split_unit(name: str) -> tuple[str, str]:
    """A field's name without its unit, and the unit; "" where it has none: `copied_GB_per_s` is in GB/s."""
    found = UNIT.fullmatch(name)
    return (found[1], found[2].replace("_per_", "/")) if found else (name, "")


def known(value: Any) -> bool:
    """Whether there is a value: neither None nor NaN, which a column of several runs has where one has nothing."""
    return value is not None and value == value


def number(value: Any, form: str) -> str:
    """A number, or a dash where there is none."""
    return f"{value:{form}}" if known(value) else DASH


def with_ends(value: Any, ends: Any, form: str) -> str:
    """A number, and its interval where there is one."""
    if not known(value):
        return DASH
    return f"{value:{form}}" + (f" ({ends[0]:{form}} to {ends[1]:{form}})" if isinstance(ends, list) else "")


def machine_column(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The machine of a row, where there are several."""
    several = len({other.get("machine") for other in rows}) > 1
    return {"machine": row["machine"]} if several else {}


def milliseconds(value: float) -> str:
    """As many decimals as the size of the number bears."""
    return f"{value:.{2 if value < 100 else 1 if value < 1000 else 0}f}"


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
