"""`python -m distilbench.llm run|eval|plot`: one variant of a decoder at a time, as a batch job measures it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from distilbench import studies
from distilbench.cli import options
from distilbench.cli.main import main
from distilbench.harness import steps
from distilbench.llm import compare, layout
from distilbench.lowrank.params import VARIANTS
from distilbench.report import insights
from distilbench.runs.folder import Run
from distilbench.runs.parameters import Resolved

STUDY = "palu"
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Variant = Annotated[Literal["baseline", "palu", "palu-v"], typer.Option(help=VARIANTS)]
Out = Annotated[Path, typer.Option(help="Folder for the results; empty, or not there yet.")]


@app.command("run")
def run_(
    variant: Variant,
    out: Out,
    suite: Annotated[Literal["infer_sweep"], typer.Option(help="Prefill and decoding.")] = "infer_sweep",
    profile: options.Profile = None,
    param: options.Pairs = None,
) -> None:
    """Measure prefill and decoding of one variant."""
    resolved = _resolved(variant, profile, param)
    run = studies.start(resolved)
    _measure(run, resolved, out)


@app.command("eval")
def eval_(
    variant: Variant,
    out: Out,
    suite: Annotated[
        Literal["ppl", "lmeval"], typer.Option(help="ppl: perplexity by four definitions; lmeval: tasks.")
    ] = "ppl",
    tasks: Annotated[str, typer.Option(help="Of lmeval: names, separated by commas.", show_default=False)] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Of lmeval: questions of each task.", show_default=False)
    ] = None,
    profile: options.Profile = None,
    param: options.Pairs = None,
) -> None:
    """Measure how well one variant predicts a text, or answers the questions of tasks."""
    of_tasks = {"task_scores_tasks": tasks or None, "task_scores_limit": limit}
    resolved = _resolved(variant, profile, param, **of_tasks)
    _measure(*studies.section(studies.start(resolved), resolved, type(resolved.params).SUITES[suite]), out)


@app.command()
def plot(base: Path, palu: Path, out: Out) -> None:
    """Compare two results of `run`: a table and pictures."""
    for file in compare.compare(base, palu, out):
        print(file)


def _resolved(variant: str, profile: str | None, param: list[str] | None, **more: Any) -> Resolved:
    return studies.resolve(STUDY, options.given_of(STUDY, profile, param, variants=[variant], **more))


def _measure(run: Run, resolved: Resolved, out: Path) -> None:
    prepared: Any = run.kind.measuring.prepare(resolved.params, run)
    summary = steps.measure_run(run, resolved, prepared)
    insights.write(run, summary)
    if saving := getattr(run.kind.showing, "save", None):
        saving(run, run.folder / "plots")
    print(layout.leave(run, out))
    run.require_ok()


if __name__ == "__main__":
    main(app)
