"""A release: report, slides, results, records, runs and what they need to be checked, in one folder with checksums."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from distilbench import paths
from distilbench.errors import RunError
from distilbench.machine import environment
from distilbench.publication import publish
from distilbench.report import load
from distilbench.runs import verify
from distilbench.runs.find import published_runs
from distilbench.runs.folder import Run

SUMS = "SHA256SUMS"
NOTES = """\
# distilbench {version}

{draft}Made of commit {commit}. Everything here follows from the runs below; the newest was measured on {newest}.

| file | what it is |
|---|---|
{files}

## Check it

```bash
sha256sum -c {sums}
distilbench verify release .
```

The second computes every summary again from the raw iterations in `runs.tar.gz`.

## Runs

{runs}

## What is new

{changes}
"""
FILES = {
    "report.pdf": "the report, for print",
    "slides.pptx": "the slides, with speaker notes",
    "report-html.tar.gz": "the report as pages: open index.html, no network needed",
    "results.parquet": "one row per cell of each run: every measured number, unrounded, with range, interval and n",
    "records.tar.gz": "the raw file of each run (one line per repetition), and its JSON Schema",
    "notebooks.tar.gz": "the executed notebooks that the report shows, and the sources of all notebooks",
    "runs.tar.gz": "the runs: parameters, environment, every iteration",
    "constraints.txt": "the exact versions of the environment",
}


def release(target: Path, pdf: Path, slides: Path, html: Path, draft: bool = False) -> list[Path]:
    """Gathers a release into a folder, which is made anew; returns its files.

    Args:
        target: the folder, such as dist/.
        pdf, slides: as built.
        html: folder of the built pages, without one's own run.
        draft: also of uncommitted code; the notes say so.

    Raises:
        RunError: something was not built, the code is in no commit, or a published run does not hold.
    """
    paths.source_date_epoch()  # a bad one is said before minutes of work, and before SciPy reads it
    unclean = environment.uncommitted(environment.git()) or ""
    if unclean and not draft:
        raise RunError(
            f"a release is made of a commit, but there is none of this code ({unclean}); --draft makes a draft"
        )
    if missing := [str(one) for one in (pdf, slides, html / "index.html") if not one.is_file()]:
        raise RunError(f"not built yet: {', '.join(missing)} (make report)")
    if (html / "your-run.html").is_file():
        raise RunError(f"{html} shows a run of your own: build it without (distilbench book --no-own)")
    runs = published_runs()
    if differences := [f"{run.run_id}: {problem}" for run in runs for problem in verify.problems(run.folder)]:
        raise RunError("a published run does not hold:\n" + "\n".join(differences))
    with paths.write_folder(target) as part:
        _fill(part, runs, pdf, slides, html)
        paths.write_atomic(part / "RELEASE_NOTES.md", notes(runs, unclean if draft else ""))
        paths.write_atomic(part / SUMS, sums(part))
    return sorted(target.iterdir())


def _fill(folder: Path, runs: list[Run], pdf: Path, slides: Path, html: Path) -> None:
    root, when = paths.repo_root(), publish.epoch()
    for name, source in {"report": pdf, "slides": slides, "constraints": root / "constraints.txt"}.items():
        shutil.copyfile(source, folder / f"{name}{source.suffix}")
    _archive(folder / "report-html.tar.gz", {"html": html}, when)
    _archive(folder / "runs.tar.gz", {"runs": paths.published_root()}, when)
    notebooks = {"pages": publish.pages_root(), "sources": root / "notebooks"}
    _archive(folder / "notebooks.tar.gz", notebooks, when, only=".ipynb")
    records = {f"records/{one.run_id}.jsonl": one.raw for run in runs for one in (run, *run.sections)}
    records |= {f"records/{file.name}": file for file in sorted((root / "book" / "schemas").iterdir())}
    _archive(folder / "records.tar.gz", records, when)
    with (folder / "results.parquet").open("wb") as file:  # Arrow would take the path for UTF-8, whatever the locale
        pq.write_table(_table(runs), file)


def _table(runs: list[Run]) -> pa.Table:
    """One row per cell of each run, as `distilbench show --format csv` has them."""
    frame = pd.concat([run.kind.showing.frame(run) for run in runs], ignore_index=True)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _archive(file: Path, content: dict[str, Path], when: int, only: str = "") -> None:
    """A .tar.gz that depends on nothing but names, bytes and the given time: sorted, no owners, no modes.

    Args:
        content: files and folders by their names in it; what begins with a dot (locks, caches) stays out of a folder.
        only: how names end.
    """
    found = ((name, top, source) for name, top in content.items() for source in (top, *top.rglob("*")))
    files = {
        str(Path(name, source.relative_to(top))): source
        for name, top, source in found
        if source.is_file() and not any(part.startswith(".") for part in source.relative_to(top).parts)
    }
    with (
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=when, fileobj=raw) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(name for name in files if name.endswith(only)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = files[name].stat().st_size, when
            with files[name].open("rb") as source:
                tar.addfile(entry, source)


def notes(runs: list[Run], draft: str = "") -> str:
    """RELEASE_NOTES.md."""
    version = metadata.version("distilbench")
    return NOTES.format(
        version=version,
        draft=f"**A draft: {draft}.**\n\n" if draft else "",
        commit=environment.git()["sha"] or "none",
        newest=max(run.config["created"][:10] for run in runs),
        files="\n".join(f"| `{name}` | {content} |" for name, content in FILES.items()),
        sums=SUMS,
        runs="\n".join(f"- {load.citation(run)}" for run in runs),
        changes=_changes(version),
    )


def _changes(version: str) -> str:
    """The section of CHANGELOG.md on this version."""
    text = (paths.repo_root() / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(version)}.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return section[1].strip() if section else "CHANGELOG.md does not say."


def sums(folder: Path) -> str:
    """SHA256SUMS, as sha256sum writes and checks it."""
    files = (file for file in sorted(folder.iterdir()) if file.name != SUMS)
    return "".join(f"{paths.sha256_file(file)}  {file.name}\n" for file in files)


# ------------------------------------------------------------------ checking


def problems(folder: Path) -> list[str]:
    """What is wrong with a release: sums that differ, summaries and results that the raw files do not give.

    Raises:
        RunError: it is no release.
    """
    if not (folder / SUMS).is_file():
        raise RunError(f"{folder} is no release: it has no {SUMS}")
    listed = dict(reversed(line.split("  ", 1)) for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
    there = {file.name for file in folder.iterdir()} - {SUMS}
    differences = [f"{name} is missing" for name in sorted({*listed, *FILES} - there)]
    differences += [f"{name} is not in {SUMS}" for name in sorted(there - listed.keys())]
    changed = (name for name in sorted(listed.keys() & there) if paths.sha256_file(folder / name) != listed[name])
    differences += [f"{name} has another checksum" for name in changed]
    if {*FILES} - there:
        return differences
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(folder / "runs.tar.gz") as tar:
            tar.extractall(scratch, filter="data")
        files = sorted(Path(scratch).glob("runs/*/*/status.json"))
        runs = sorted((Run(file.parent) for file in files), key=lambda run: (run.config["created"], run.run_id))
        differences += [f"run {run.run_id}: {problem}" for run in runs for problem in verify.problems(run.folder)]
        with (folder / "results.parquet").open("rb") as file:
            if not differences and not _table(runs).equals(pq.read_table(file)):
                differences.append("results.parquet is not what the runs give")
    return differences
