"""Building the book: the committed pages, and one more that shows the newest run of this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from distilbench import paths
from distilbench.errors import DistilbenchError
from distilbench.publication import publish
from distilbench.runs.folder import Run

YOURS = "your-run"
RUN = "from jupyter_book.cli.main import main; main()"  # it has no __main__


@contextmanager
def build_lock(wait: bool = False) -> Iterator[None]:
    """Keeps a second build away while inside; with `wait`, waits for its turn.

    Raises:
        RunError: another process builds the book.
    """
    lock = paths.repo_root() / "book" / "_build" / ".lock"
    with paths.hold_lock(lock, "the book is being built by another process", wait):
        yield


def build(own_run: Run | None = None) -> Path:
    """Builds book/_build/html; a warning is an error.

    Args:
        own_run: a finished and analysed run to show as "Your run"; None: committed content only.

    Returns:
        The page of the run, else the first page.

    Raises:
        DistilbenchError: jupyter-book is not installed, a page and its run disagree, or the build failed; the message
            holds what was complained of.
    """
    book = paths.repo_root() / "book"
    call_builder(toc=_with_your_run(book, own_run) if own_run else None)
    page = book / "_build" / "html" / (f"{YOURS}.html" if own_run else "index.html")
    if not page.is_file():
        raise DistilbenchError(f"jupyter-book ended well, but there is no {page}")
    return page


def call_builder(*options: str, toc: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Calls jupyter-book on the book; a warning is an error.

    Args:
        options: of `jupyter-book build`, such as `--builder`.
        toc: another table of contents than the committed one.
        env: environment variables to add.

    Raises:
        DistilbenchError: as `build`.
    """
    if importlib.util.find_spec("jupyter_book") is None:
        raise DistilbenchError("the book needs jupyter-book: make env EXTRAS=book, or pip install 'distilbench[book]'")
    root = paths.repo_root()
    which = ["--toc", str(toc or root / "_toc.yml"), "-W", "-n", "--keep-going"]
    _call([*paths.PYTHON, "-c", RUN, "build", str(root / "book"), *which, *options], env)


def _with_your_run(book: Path, run: Run) -> Path:
    """Writes the page of the run and a table of contents that has it; both are ignored by git."""
    notebook = publish.analysis_file(run)
    publish.write_page(book / f"{YOURS}.ipynb", notebook, run, YOURS, own_run=True)
    toc: dict[str, Any] = yaml.safe_load((paths.repo_root() / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"].insert(0, {"caption": "Your run", "chapters": [{"file": YOURS}]})
    file = book / "_build" / "_toc.yml"
    paths.write_atomic(file, yaml.safe_dump(toc, sort_keys=False))
    return file


def _call(command: list[str], env: dict[str, str] | None = None) -> None:
    inputs = {"stdin": subprocess.DEVNULL, "env": os.environ | (env or {})}  # TeX would wait for an answer
    done = subprocess.run(command, capture_output=True, check=False, **inputs, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        complaints = [line for line in lines if re.search("WARNING|ERROR|^! ", line)] or lines[-15:]
        raise DistilbenchError("jupyter-book could not build the book:\n" + "\n".join(complaints))
