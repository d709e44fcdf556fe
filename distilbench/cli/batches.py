"""The command that puts batch sizes on trial: measures them, or analyses a file of such a measurement."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from distilbench import paths
from distilbench.cli import options
from distilbench.errors import DistilbenchError, ParameterError

STUDY = "batches"


def profile_batches(
    profile: options.Profile = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")] = None,
    batch_sizes: options.BatchSizes = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the measured file here, with its report beside it."),
    ] = None,
    analyse: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Only analyse this file, and write the report beside it. Needs no torch."),
    ] = None,
    file: options.Files = None,
    param: options.Pairs = None,
    results_root: options.ResultsRoot = "",
    resume: Annotated[str, typer.Option(metavar="RUN", help="Resume this run, with its own parameters.")] = "",
    as_json: options.AsJson = False,
    log_format: options.LogFormat = "text",
) -> None:
    """Say which batch sizes deviate from linear scaling, which only seem to, and which operators account for it.

    Measures every size in processes of its own, then its operators, into a run folder with `batch_profile.json` and
    `batch_anomaly_report.md`. The same as `distilbench run batches`, with the report as its answer.
    """
    from distilbench.anomaly import records, report

    if analyse is not None:
        given = {"--output": output, "--profile": profile, "--device": device, "--batch-sizes": batch_sizes}
        given |= {"--resume": resume, "--file": file, "--param": param, "--results-root": results_root}
        if several := [name for name, value in given.items() if value]:
            raise ParameterError(f"--analyse reads a file and measures nothing: leave out {' and '.join(several)}")
        source = paths.find_input(analyse)
        _say(as_json, source, report.write(source))
        return
    from distilbench.execution import notebooks

    values = options.given_of(STUDY, profile, param, file, device=device, batch_sizes=batch_sizes)
    done = notebooks.run_study(STUDY, values, resume, False, results_root)
    source, written = done.folder / records.NAME, done.folder / report.NAME
    if output is not None:
        records.write(output, records.read(source))
        source, written = output, report.write(output)
    _say(as_json, source, written, done.run_id)
    if (status := done.status)["state"] != "ok":
        raise DistilbenchError(f"run {done.run_id} ended as {status['state']}: {status['message']}")


def _say(as_json: bool, source: Path, written: Path, run_id: str = "") -> None:
    """The answer and the table, and where the report is."""
    from distilbench.anomaly import records, report
    from distilbench.anomaly.analysis import analyse

    analysis = analyse(records.read(source))
    options.print_result(
        as_json,
        {"file": str(source), "report": str(written), "analysis": asdict(analysis)},
        *(report.table(curve) for curve in analysis.curves if curve.sizes),
        "",
        *(line.replace("**", "") for line in report.answer(analysis)),
        f"\n{'file':>12}  {source}",
        f"{'report':>12}  {written}",
        *([f"{'check it':>12}  distilbench verify run {run_id}"] if run_id else []),
    )
