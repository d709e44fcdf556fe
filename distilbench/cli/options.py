"""What the commands share: their options and arguments, and how they print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distilbench.errors import ParameterError

if TYPE_CHECKING:
    from distilbench.runs.folder import Run

StudyName = Annotated[str, typer.Argument(help="Name of the study, such as distilbert.")]
RunName = Annotated[str, typer.Argument(help="Run id, the beginning or end of one, a folder, or `latest`.")]
Profile = Annotated[str | None, typer.Option(help="ci, smoke (the default) or full.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ResultsRoot = Annotated[str, typer.Option(help="Folder of run folders; default: results/ of the checkout.")]
Pairs = Annotated[
    list[str] | None, typer.Option("-p", "--param", metavar="KEY VALUE", help="Set any parameter; may be repeated.")
]
Files = Annotated[
    list[Path] | None,
    typer.Option("-f", "--file", help="YAML file of parameters, such as params/hardware/a100.yml; repeatable."),
]
LogFormat = Annotated[Literal["text", "json"], typer.Option(help="How to log: text (coloured in a terminal) or json.")]


def given_of(
    study: str, profile: str | None, pairs: list[str] | None, files: list[Path] | None = None, **named: Any
) -> dict[str, Any]:
    """What was given, by parameter: files first, then options; `-p KEY VALUE` reads VALUE by the type of KEY."""
    from distilbench import paths, studies
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


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, default=str))


def print_summary(run: Run, summary: dict[str, Any]) -> None:
    """The table, the run in one sentence, and beside them what it cannot say."""
    showing = run.kind.showing
    print_table(showing.cells(run, summary))
    print(f"\n{showing.headline(summary)}")
    for line in showing.doubts(summary):
        print(f"- {line}")


def print_table(frame: Any) -> None:
    """A table that fits a terminal; plain text elsewhere."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in frame.columns:
        table.add_column(
            column, justify="left" if column in ("variant", "length", "state", "cell", "verdict") else "right"
        )
    for row in frame.itertuples(index=False):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
