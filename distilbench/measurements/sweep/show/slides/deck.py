"""The text of the slides: a template, and the numbers of the published runs for it."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from distilbench import paths
from distilbench.errors import RunError
from distilbench.measurements.sweep.show import findings
from distilbench.measurements.sweep.show.slides import pictures as drawing
from distilbench.report import charts, glue, load, spread
from distilbench.runs.folder import Run
from distilbench.stats import median_level

TEMPLATE = Path(__file__).parent / "slides.md.j2"
#: The pages whose runs the slides show, under the names that the template has for them.
PAGES = {"small": "cpu-embedded", "large": "cpu-random", "kept": "cpu-embedded-keep"}
LENGTHS = {"short": "fixed-32", "long": "fixed-128", "padded": "longest"}
VARIANT = "sdpa"


class Numbers:
    """The numbers of a published run, by name; one that it does not have is an error, never a blank."""

    def __init__(self, run: Run, values: dict[str, glue.Value]) -> None:
        self.run, self.values = run, values

    def __getitem__(self, name: str) -> glue.Value:
        if name not in self.values:
            raise RunError(
                f"the slides need {name!r}, which run {self.run.run_id} does not have: publish a run that measured it, "
                f"or change {TEMPLATE.name}"
            )
        return self.values[name]

    def curve(self, policy: str) -> str:
        """How the names of a curve begin."""
        return f"{VARIANT}-{policy}-"

    def cell(self, policy: str, which: str) -> str:
        """How the names of a cell begin: at the `first` or `last` batch size, or at that of the `best` throughput."""
        name = f"{self.curve(policy)}best-throughput_batch_size" if which == "best" else f"batch_size_{which}"
        return f"{self.curve(policy)}b{self[name]!s}-"


def numbers_of(run: Run) -> Numbers:
    """Every number of a run that a slide may name: those of the report, what brackets and bars are, their source."""
    values, table = glue.values(run), load.table([run])
    values |= {"bars": spread.reach(table, "latency_ms"), "level": median_level(values["repetitions"])}
    if "memory_repetitions" in values:
        values["memory_bars"] = spread.reach(table, "peak_memory_MiB")
    return Numbers(run, values | {"raw_sha256": paths.sha256_file(run.raw), "citation": load.citation(run)})


def pictures(runs: dict[str, Run]) -> dict[str, charts.Shown]:
    """The pictures by name, of runs by the names of PAGES."""
    return drawing.pictures(**runs, lengths=LENGTHS)


def render(numbers: dict[str, Numbers], instruments: dict[str, dict[str, str]], drawn: dict[str, charts.Shown]) -> str:
    """The slides as pandoc's Markdown; of the pictures what is said of them.

    Args:
        numbers: by the names of PAGES.
        instruments: by kind, what is published of the instrument.
        drawn: the pictures.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["shown"] = shown
    newest = max(numbers.values(), key=lambda one: one.run.config["created"])
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **numbers,
        **LENGTHS,
        alt={name: one.alt_text for name, one in drawn.items()},
        note={name: one.note for name, one in drawn.items()},
        **instruments,
        newest=newest,
        worth=findings.WORTH,
        version=metadata.version("distilbench"),
    )


def shown(value: Any, spec: str = "") -> str:
    """A value in the format, with what Markdown would take for markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|#~^$@\"])", r"\\\1", format(value, spec))
