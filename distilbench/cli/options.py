"""What the commands share: their options and arguments, and how they print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distilbench import paths
from distilbench.errors import ParameterError

if TYPE_CHECKING:
    from types import ModuleType

    from distilbench.runs.folder import Run
    from distilbench.runs.measurement import Measurement


def _set_up_log(log_format: Literal["text", "json"]) -> str:
    from distilbench import progress

    progress.set_up_log(log_format)
    return log_format


StudyName = Annotated[str, typer.Argument(help="Name of the study, such as distilbert.")]
RunName = Annotated[str, typer.Argument(help="Run id, the beginning or end of one, a folder, or `latest`.")]
Profile = Annotated[str | None, typer.Option(help="ci, smoke (the default) or full.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ResultsRoot = Annotated[str, typer.Option(help="Folder of run folders; default: results/ of the checkout.")]
MaxLatency = Annotated[float | None, typer.Option(help="Of a batch; the high end of its interval must keep it.")]
MaxMemory = Annotated[float | None, typer.Option(help="Of a batch at its peak: resident memory, or a GPU's.")]
BatchSizes = Annotated[str | None, typer.Option(help="Comma-separated, such as 16,32.")]
Pairs = Annotated[
    list[str] | None, typer.Option("-p", "--param", metavar="KEY VALUE", help="Set any parameter; may be repeated.")
]
Files = Annotated[
    list[Path] | None,
    typer.Option("-f", "--file", help="YAML file of parameters, such as params/hardware/a100.yml; repeatable."),
]
LogFormat = Annotated[
    Literal["text", "json"],
    typer.Option(help="How to log: text (coloured in a terminal) or json.", callback=_set_up_log),
]
LEFT = (  # columns of words
    "variant", "length", "state", "cell", "verdict", "what", "found", "step", "of", "said", "text", "label",
    "predicted",
)  # fmt: skip


def given_of(
    study: str, profile: str | None, pairs: list[str] | None, files: list[Path] | None = None, **named: Any
) -> dict[str, Any]:
    """What was given, by parameter: files first, then options; `-p KEY VALUE` reads VALUE by the type of KEY."""
    from distilbench import studies
    from distilbench.runs import parameters

    given: dict[str, Any] = {}
    for file in files or []:
        given |= parameters.read_yaml(paths.find_input(file))
    given |= {key: value for key, value in {"profile": profile, **named}.items() if value is not None}
    for pair in pairs or []:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ParameterError(f"-p takes a key and a value, but got only {pair!r}")
        given[key] = studies.from_text(study, key, text)
    return {key: value for key, value in given.items() if value is not None}


def run_of(reference: str, results_root: str, or_calibration: bool = False) -> Run:
    """The run that is meant (see `find.find`); a calibration is named by its folder."""
    from distilbench.runs import find
    from distilbench.runs.folder import Run

    if or_calibration and (Path(reference) / "config.json").is_file():
        return Run(paths.readable(Path(reference).resolve()))
    return find.find(reference, results_root)


def shown_by(kind: Measurement, what: str) -> ModuleType:
    """What only some kinds show: their `capacity`, their `optimal` batch size.

    Raises:
        ParameterError: this one does not.
    """
    if not (found := getattr(kind.showing, what, None)):
        raise ParameterError(f"runs of kind {kind.name!r} say nothing of batches and capacity")
    return found


def optimal(
    study: str, device: str, results_root: str, max_latency_ms: float | None, max_memory_mib: float | None
) -> tuple[int, str]:
    """The batch size with the best throughput within the limits, and which run says so."""
    from distilbench import studies

    shown = shown_by(studies.kind_of(study), "optimal")
    return shown.batch_size(study, device, results_root, shown.Limits(max_latency_ms, max_memory_mib))


def print_result(as_json: bool, content: Any, *parts: Any) -> None:
    """One JSON document for programs; for people lines and tables."""
    if as_json:
        print(json.dumps(content, indent=2, default=str))
        return
    for part in parts:
        print(part) if isinstance(part, str) else print_table(part)


def summary_parts(run: Run, summary: dict[str, Any], brief: bool = False) -> list[Any]:
    """The table, the run in one sentence, and what it cannot say: by cause, or in another sentence (`brief`)."""
    from distilbench.report import doubts

    showing, command = run.kind.showing, f"distilbench show {run.run_id} --doubts"
    said = [showing.reservation(summary)] if brief else doubts.lines(showing.causes(run, summary), command)
    of_sections = [part for one in run.sections for part in _of_section(one, brief)]
    return [showing.cells(run, summary), f"\n{showing.headline(summary)}", *of_sections, *said]


def _of_section(section: Run, brief: bool) -> list[Any]:
    """Its table, its headline, and its doubts by cause."""
    from distilbench.report import doubts, load

    if not section.is_finished:
        return [f"\n{section.kind.name}: {section.status['state']}"]
    showing, summary, command = section.kind.showing, section.summary, f"distilbench show {section.folder} --doubts"
    said = [] if brief else doubts.lines(showing.causes(section, summary), command)
    other = load.other_model(section)
    name = f"{section.kind.name}, of {other}" if other else section.kind.name
    return [f"\n{name}:", showing.cells(section, summary), f"\n{showing.headline(summary)}", *said]


def print_table(table: Any) -> None:
    """Rows by column, or a frame: fits a terminal, plain text elsewhere; nothing is cut off."""
    from rich.console import Console
    from rich.table import Table

    rows = table if isinstance(table, list) else table.to_dict("records")
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else ():
        shown.add_column(column, justify="left" if column in LEFT else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(shown)  # a [name] is no markup
