"""Numbers for prose: an executed notebook carries them under names, and chapters take them from there.

The format is MyST-NB's `glue` (myst_nb/ext/glue): an output whose metadata hold the name under `scrapbook`.
"""

from __future__ import annotations

import ast
from typing import Any

from distilbench.runs.folder import Run

HIDDEN = "application/papermill.record/"  # the prefix with which an output is kept but not shown
Value = str | int | float


def values(run: Run) -> dict[str, Value]:
    """Every number of a run that prose may name, by name; what was not measured has none.

    Those of a section begin with its name: `profiling-sdpa-fixed-32-b1-verdict`.
    """
    found = run.kind.showing.numbers(run)
    for section in run.sections:
        its = section.kind.showing.numbers(section)
        found |= {f"{section.kind.name}-{name}": value for name, value in its.items()}
    return found


def mark_of(run: Run, name: str) -> str | None:
    """Under which name it is said whether a number comes from an unstable cell; None: no process was timed for it."""
    of, _, rest = name.partition("-")
    section = next((one for one in run.sections if one.kind.name == of), None)
    if section is None:
        return run.kind.showing.mark_of(name)
    mark = section.kind.showing.mark_of(rest)
    return mark and f"{of}-{mark}"


def put(named: dict[str, Value]) -> None:
    """Puts values into the outputs of the notebook cell that calls this, unseen."""
    from IPython.display import display

    for name, value in named.items():
        metadata = {"scrapbook": {"name": name, "mime_prefix": HIDDEN}}
        display({f"{HIDDEN}text/plain": repr(value)}, raw=True, metadata=metadata)


def read(notebook: dict[str, Any]) -> dict[str, Value]:
    """The values that an executed notebook carries."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    carried = [output for output in outputs if "scrapbook" in output.get("metadata", {})]
    return {
        output["metadata"]["scrapbook"]["name"]: ast.literal_eval(output["data"][f"{HIDDEN}text/plain"])
        for output in carried
    }
