"""A run for other people's documents: Markdown, LaTeX and CSV, with the sentence to cite it."""

from __future__ import annotations

from collections.abc import Callable

from distilbench.report import load, tables
from distilbench.runs.folder import Run

citation = load.citation


def markdown(run: Run) -> str:
    """A pipe table; below, what its numbers are, and the citation."""
    table = load.table([run])
    return (
        f"{tables.markdown(run.kind.showing.measured(table))}\n\n{run.kind.showing.caption(table)}.\n\n{citation(run)}"
    )


def latex(run: Run) -> str:
    """A booktabs table; its caption says what its numbers are, and is the citation."""
    table = load.table([run])
    frame = run.kind.showing.measured(table)
    style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    words = {"machine", "variant", "length", "state"}
    return style.to_latex(
        hrules=True,
        column_format="".join("l" if column in words else "r" for column in frame.columns),
        caption=_escaped(f"{run.kind.showing.caption(table)}. {citation(run)}"),
        label=f"tab:{run.run_id}",
        position="htbp",
        position_float="centering",
    ).rstrip()


def _escaped(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text


def csv(run: Run) -> str:
    """Every number of every cell, unrounded; what was not measured is empty."""
    return run.kind.showing.frame(run).to_csv(index=False, lineterminator="\n").rstrip()


FORMATS: dict[str, Callable[[Run], str]] = {"md": markdown, "latex": latex, "csv": csv}
