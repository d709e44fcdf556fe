"""The book as one PDF: typeset by xelatex, or, where there is no TeX, as Chromium prints it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from distilbench import paths
from distilbench.errors import DistilbenchError
from distilbench.publication import build as publication_build
from distilbench.publication import publish

TEX = ("make", "latexmk", "xelatex")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BETTER = "`make pdf-deps` installs all of it (Debian, as root)"
WIDEST_pt = 10.0  # what may stick out of a line before it looks cut off

COMPLAINTS = (
    re.compile(r"^! .*", re.MULTILINE),
    re.compile(r"^LaTeX Warning: (?:Reference|Hyper reference|Citation) .* undefined.*", re.MULTILINE),
    re.compile(r"^LaTeX Warning: Label .* multiply defined.*", re.MULTILINE),
    re.compile(r"^Missing character: .*", re.MULTILINE),  # xelatex leaves out what the font lacks, and ends well
)
PRINTING_S = 600.0  # in which a browser that prints at all has printed
OVERFULL = re.compile(r"^Overfull \\[hv]box \(([\d.]+)pt too (?:wide|high)\).*", re.MULTILINE)


def build() -> tuple[Path, str]:
    """Builds book/_build/pdf/report.pdf of the committed content.

    Returns:
        The file, and what must be said about it; empty: nothing.

    Raises:
        DistilbenchError: neither TeX nor Chromium is installed, a page and its run disagree, or something is cut off,
            missing or undefined; the message holds what was complained of.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    absent = ", ".join(program for program in TEX if not shutil.which(program))
    if absent and not browser:
        raise DistilbenchError(f"a PDF needs TeX ({absent} missing) or, for a plainer one, Chromium. {BETTER}")
    made = _printed(browser) if absent else _typeset()
    target = paths.repo_root() / "book" / "_build" / "pdf" / "report.pdf"
    paths.write_atomic(target, made)
    return target, f"printed by Chromium, the fallback: TeX ({absent}) is missing. {BETTER}" if absent else ""


def _typeset() -> bytes:
    folder = paths.repo_root() / "book" / "_build" / "latex"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier build left would count as this one's
    try:
        publication_build.call_builder("--builder", "pdflatex", env=_environment())
    except DistilbenchError as error:
        if re.search(r"^! .*(?:not|cannot be) found", str(error), re.MULTILINE):
            raise DistilbenchError(f"{error}\nA part of TeX is missing. {BETTER}") from None
        raise
    log, made = folder / "report.log", folder / "report.pdf"
    if not log.is_file():
        raise DistilbenchError(f"TeX ended without an error and without {log}. {BETTER}")
    if lines := complaints(log.read_text(encoding="utf-8", errors="replace")):
        raise DistilbenchError(f"the PDF is not fit to print ({log}):\n" + "\n".join(lines))
    if not made.is_file():
        raise DistilbenchError(f"TeX ended without an error and without {made}: see {log}")
    return made.read_bytes()


def _environment() -> dict[str, str]:
    """What makes two builds of the same content the same bytes, and an error the end instead of a question.

    xdvipdfmx takes the file's dates, its identifier and the names of its parts of fonts from SOURCE_DATE_EPOCH;
    FORCE_SOURCE_DATE makes TeX's own clock follow, for packages that ask it.
    """
    reproducible = {"SOURCE_DATE_EPOCH": str(publish.epoch()), "FORCE_SOURCE_DATE": "1"}
    whole_lines = {"max_print_line": "1000"}  # in the log, which TeX would break in the middle of words
    return reproducible | whole_lines | {"LATEXOPTS": "--interaction=nonstopmode --halt-on-error"}


def complaints(log: str) -> list[str]:
    """What a TeX log says of things that a reader would miss: errors, undefined references, characters, wide lines."""
    lines = [match[0] for pattern in COMPLAINTS for match in pattern.finditer(log)]
    return lines + [match[0] for match in OVERFULL.finditer(log) if float(match[1]) > WIDEST_pt]


def _printed(browser: str) -> bytes:
    publication_build.call_builder("--builder", "singlehtml")
    page = paths.repo_root() / "book" / "_build" / "singlehtml" / "intro.html"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        target = Path(place) / "report.pdf"
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place}", "--no-pdf-header-footer"]
        command = [browser, *options, f"--print-to-pdf={target}", page.as_uri()]
        try:
            done = subprocess.run(
                command, capture_output=True, check=False, timeout=PRINTING_S, encoding="utf-8", errors="replace"
            )
        except subprocess.TimeoutExpired:
            raise DistilbenchError(f"{browser} did not print {page} within {PRINTING_S:g} s") from None
        made = target.read_bytes() if target.is_file() else b""
        if done.returncode or not made.startswith(b"%PDF"):
            raise DistilbenchError(f"{browser} could not print {page}:\n{done.stderr[-2000:]}")
        return made
