"""The command line: every command, and how it ends. Each imports what it needs, so that --help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import typer

from distilbench import paths, terminal
from distilbench.cli import batches, cluster, job, measuring, reading, verify
from distilbench.errors import DistilbenchError, Stopped

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again

app = typer.Typer(
    help="Measures what transformer inference costs, into run folders that can be checked.\n\n"
    "Start with `distilbench doctor` (what can be measured here), then `distilbench run distilbert` (about three "
    "minutes), then `distilbench show latest`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
verify_app = typer.Typer(
    help="Check a run, or the text it was made with, against what was recorded.", no_args_is_help=True
)
job_app = typer.Typer(
    help="The steps of the batch jobs of `submit`; each may be repeated at any time.", no_args_is_help=True
)
app.add_typer(verify_app, name="verify")
app.add_typer(job_app, name="job")
for command in (
    *(measuring.run, measuring.fetch, reading.show, reading.compare, reading.claims, reading.publish, reading.book),
    *(reading.pdf, reading.slides, reading.release, reading.analyse, batches.profile_batches),
    *(cluster.recommend, measuring.calibrate, measuring.doctor, measuring.version),
):
    app.command()(command)
for command in (cluster.submit, cluster.status, cluster.cancel, cluster.push, cluster.optimal, cluster.capacity):
    app.command(rich_help_panel="Batch system")(command)
for command in (verify.run, verify.book, verify.release, verify.data):
    verify_app.command()(command)
for command in (job.ingest, job.measure, job.gather, job.sections, job.analyse, job.book, job.account):
    job_app.command()(command)


def join_pairs(words: list[str]) -> list[str]:
    """`-p KEY VALUE` (as papermill has it) as the one word that typer's repeatable options can take."""
    joined, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word in ("-p", "--param") and len(rest) >= 2 and "=" not in rest[0]:
            joined.append(f"{rest.pop(0)}={rest.pop(0)}")
    return joined


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM and its batch script may both send one: once is enough
    raise KeyboardInterrupt


def main(commands: typer.Typer | None = None) -> None:
    """Entry point: errors for people as one message, never a traceback.

    Exit code 1 for them, 130 for Ctrl-C and SIGTERM, 75 when asked to stop with work left (a batch script requeues).
    Errors that no check foresaw are one line too, and DISTILBENCH_TRACEBACK=1 shows where they happened.
    """
    terminal.prepare()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if paths.source_date_epoch() is None:  # said here: libraries read the variable too, and end in a traceback
            os.environ.pop("SOURCE_DATE_EPOCH", None)
        try:
            (commands or app)(args=join_pairs(sys.argv[1:]), prog_name=Path(sys.argv[0]).name, standalone_mode=True)
        finally:
            terminal.flush()
    except Stopped as stopped:
        _end(f"stopped: {stopped}", STOPPED)
    except DistilbenchError as error:
        _end(f"error: {error}", 1)
    except SystemExit as ended:
        if ended.code == 130:  # what typer makes of a KeyboardInterrupt
            print("interrupted: nothing that was measured is lost; to resume, repeat the command", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.exit(1)
    except (OSError, RuntimeError, UnicodeError) as error:
        if os.environ.get(terminal.TRACEBACK):
            raise
        _end(f"error: {terminal.unforeseen(error)}", 1)


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
