"""The slides: a template over the published runs, their pictures, and a PowerPoint file with both."""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from distilbench import paths
from distilbench.errors import DistilbenchError, RunError
from distilbench.measurements.calibration import summary
from distilbench.measurements.sweep.show import findings
from distilbench.publication import publish
from distilbench.publication.slides import pictures, powerpoint
from distilbench.report import charts, glue, load, spread, tables
from distilbench.runs.folder import Run
from distilbench.stats import median_level

TEMPLATE = Path(__file__).parent / "slides.md.j2"
STUDY = "distilbert"
#: The pages whose runs the slides show, under the names that the template has for them.
PAGES = {"small": "cpu-embedded", "large": "cpu-random", "kept": "cpu-embedded-keep"}
LENGTHS = {"short": "fixed-32", "long": "fixed-128", "padded": "longest"}
VARIANT = "sdpa"
DEPTH = "full"  # of the calibration
NEEDED = {"pypandoc": "pypandoc-binary", "pptx": "python-pptx"}
SCALE = 3  # pixels of a picture per point: sharp on a large screen


class Told:
    """What a published run tells the template, by name; a number that it does not have is an error, never a blank."""

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


# ------------------------------------------------------------------ building


def build(folder: Path | None = None) -> Path:
    """Makes slides.pptx of the published runs, with its source, pictures and reference document beside it.

    Equal runs give equal bytes. The time inside the file is $SOURCE_DATE_EPOCH (seconds), else when the newest of the
    runs was begun.

    Args:
        folder: where to; None: book/_build/slides of the checkout.

    Returns:
        The path of slides.pptx.

    Raises:
        DistilbenchError: pandoc or python-pptx is not installed, pandoc failed, a run that the slides need is not
            published, or it and its page disagree; the message says which.
    """
    if missing := [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]:
        raise DistilbenchError(
            f"the slides need {' and '.join(missing)}: make env EXTRAS=slides, or pip install 'distilbench[slides]'"
        )
    folder = folder or paths.repo_root() / "book" / "_build" / "slides"
    with paths.hold_lock(folder / ".lock", "the slides are being made by another process"):
        told = {name: tell(published_run(page)) for name, page in PAGES.items()}
        drawn = pictures.pictures(**{name: one.run for name, one in told.items()}, lengths=LENGTHS)
        for name, picture in drawn.items():
            paths.write_atomic(folder / f"{name}.png", charts.png(picture.drawn, scale=SCALE))
        source = folder / "slides.md"
        paths.write_atomic(source, render(told, calibration(), drawn))
        return powerpoint.write(source, folder / "slides.pptx", moment([one.run for one in told.values()]))


def published_run(name: str) -> Run:
    """The run that a page of the report shows.

    Raises:
        RunError: there is no such page, its run is gone, or the two disagree.
    """
    page = publish.pages_root() / STUDY / f"{name}.ipynb"
    if page not in publish.pages():
        raise RunError(
            f"the slides show the run of page {STUDY}/{name}, which is not published: "
            f"`distilbench publish RUN --name {name}` (there is no {page})"
        )
    if found := publish.problems(page):
        raise RunError("the slides cannot be made:\n" + "\n".join(f"- {problem}" for problem in found))
    told = publish.told_by(page)
    return Run(paths.published_root() / told["study"] / told["run_id"])


def moment(shown: list[Run]) -> datetime:
    """The one time in the file, in UTC: $SOURCE_DATE_EPOCH, else when the newest run was begun.

    Raises:
        ParameterError: the variable is no number of seconds.
    """
    if (given := publish.source_date_epoch()) is not None:
        return datetime.fromtimestamp(given, UTC)
    return max(datetime.fromisoformat(run.config["created"]) for run in shown).astimezone(UTC)


# ------------------------------------------------------------------ what the template is told


def tell(run: Run) -> Told:
    """Every number of a run that a slide may name: those of the report, what brackets and bars are, their source."""
    values, table = glue.values(run), load.table([run])
    values |= {"bars": spread.reach(table, "latency_ms"), "level": median_level(values["repetitions"])}
    if "memory_repetitions" in values:
        values["memory_bars"] = spread.reach(table, "peak_memory_MiB")
    return Told(run, values | {"raw_sha256": paths.sha256_file(run.raw), "citation": load.citation(run)})


def calibration() -> dict[str, str]:
    """What the published calibration says: its table, its caption, its name and the hash of its readings.

    Raises:
        RunError: none is published, or it disagrees with its readings.
    """
    folder = summary.published(DEPTH)
    if folder is None:
        raise RunError(
            f"the slides show a calibration of depth {DEPTH!r}, and none is published: `distilbench calibrate "
            f"--{DEPTH}`, then `distilbench publish` with its folder"
        )
    if found := summary.problems(folder):
        raise RunError(f"calibration {folder.name} disagrees with its readings: {found[0]}")
    checks = summary.table(paths.read_json(folder / "summary.json"))
    held = checks["verdict"].where(checks["verdict"] == checks["bound"], checks["verdict"] + ": " + checks["bound"])
    checks = checks.drop(columns=["bound", "verdict"]).assign(**{"held to": held})
    checks["measured"] = checks["measured"].str.replace("independent ", "")  # the caption says so
    return {
        "run_id": folder.name,
        "caption": summary.caption(folder),
        "table": tables.markdown(gathered(checks)),
        "readings_sha256": paths.sha256_file(folder / "checks.jsonl"),
    }


def gathered(checks: pd.DataFrame) -> pd.DataFrame:
    """Plain readings of one kind that are held to the same go into one row: `sleep of 1/10/100 ms`."""
    plain = checks["measured"].str.split().str.len() <= 2  # a number and its unit
    kind = checks["check"].where(~plain, checks["check"].str.split().str[:2].str.join(" "))
    words = checks[["check", "truth", "measured"]].map(lambda text: len(text.split())).astype(str).agg(" ".join, axis=1)
    keys = [kind.rename("kind"), checks["held to"].rename("bound"), words.rename("words")]
    return checks.groupby(keys, sort=False).agg(_joined).reset_index(drop=True)


def _joined(texts: pd.Series) -> str:
    words = zip(*(text.split() for text in texts), strict=True)
    return " ".join("/".join(dict.fromkeys(alike)) for alike in words)


def render(told: dict[str, Told], ruler: dict[str, str], drawn: dict[str, charts.Shown]) -> str:
    """The slides as pandoc's Markdown; of the pictures what is said of them."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["shown"] = shown
    newest = max(told.values(), key=lambda one: one.run.config["created"])
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **told,
        **LENGTHS,
        alt={name: one.alt_text for name, one in drawn.items()},
        note={name: one.note for name, one in drawn.items()},
        calibration=ruler,
        newest=newest,
        saturated=findings.SATURATED,
        version=metadata.version("distilbench"),
    )


def shown(value: Any, spec: str = "") -> str:
    """A value in the format, with what Markdown would take for markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|#~^$@\"])", r"\\\1", format(value, spec))
