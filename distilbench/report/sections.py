"""What the sections of runs say, for the page of these runs: each has a kind of its own, which shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distilbench.report import load
from distilbench.report.charts import NotMeasured, Shown
from distilbench.report.tables import Table
from distilbench.runs.folder import Run

if TYPE_CHECKING:
    from IPython.display import Markdown


def parts(chosen: list[Run]) -> Iterator[Table | Markdown]:
    """By section: its main table, what follows from it, and its further tables; nothing for runs without sections."""
    from IPython.display import Markdown  # a notebook has it; not everything that shows runs is one

    every = [section for run in chosen for section in run.sections if section.is_measured]
    for name in dict.fromkeys(section.folder.name for section in every):
        of = [section for section in every if section.folder.name == name]
        showing, table = of[0].kind.showing, load.table(of)
        others = dict.fromkeys(f"; of {other}" for one in of if (other := load.other_model(one)))
        yield Table(showing.measured(table), f"{showing.caption(table)}{''.join(others)}", f"tab-{name}")
        if said := showing.sentences(table):
            yield Markdown("\n".join(f"- {sentence}" for sentence in said))
        yield from showing.details(table, f"tab-{name}")


def picture(run: Run, name: str) -> Shown | NotMeasured:
    """What a section of a run shows as a picture.

    Args:
        name: of the section's folder, which is its kind's.
    """
    for section in run.sections:
        if section.folder.name == name and section.is_measured:
            return section.kind.showing.picture(section)
    return NotMeasured(f"Section {name}", ["this run has none"])
