"""The PDF as people get it: built from copies of the checkout by the command, then read page by page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import unicodedata
from datetime import datetime
from importlib import metadata
from pathlib import Path

import checkouts
import nbformat
import pytest
from conftest import IN_CI
from docutils import nodes

from distilbench import paths
from distilbench.errors import DistilbenchError
from distilbench.measurements.calibration import show
from distilbench.measurements.calibration.kind import MEASUREMENT as CALIBRATION
from distilbench.publication import build, latex_extension, publish
from distilbench.publication import pdf as printing
from distilbench.report import glue
from distilbench.runs import find
from distilbench.runs.folder import Run

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
READERS = ("pdftotext", "pdfinfo", "pdfimages", "qpdf")
MARGIN_pt = 50.0  # 18 mm; the text keeps 25 mm
SHORT = 25  # characters besides head and foot; less than that is a page with nothing on it
HEAD = "What transformer inference costs, distilbench"
#: Titles of axes, one of them in each chart, and nowhere else in the book.
IN_CHARTS = ("Batch size (sentences per forward pass)", "Time (ms)", "Rows seen")


def need(*programs: str) -> None:
    """Skips where a program is missing; in CI that is a failure."""
    absent = [program for program in programs if not shutil.which(program)]
    if absent:
        reason = f"{', '.join(absent)} missing: scripts/system_packages.sh installs it (Debian)"
        (pytest.fail if IN_CI else pytest.skip)(reason)


def run_pdf(checkout: Path, **env: str) -> subprocess.CompletedProcess:
    env = os.environ | {"DISTILBENCH_ROOT": str(checkout), "DISTILBENCH_RESULTS": str(checkout / "results")} | env
    command = [str(BIN / "distilbench"), "pdf"]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def file_of(done: subprocess.CompletedProcess, checkout: Path) -> Path:
    assert done.returncode == 0, done.stderr
    file = checkout / "book" / "_build" / "pdf" / "report.pdf"
    assert done.stdout.split() == ["report", str(file)]
    return file


def tool(*command: str | Path) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


def pages_of(file: Path) -> list[str]:
    return tool("pdftotext", "-layout", file, "-").split("\f")[:-1]


def squeezed(text: str) -> str:
    """Without what typesetting changes: ligatures, spaces, line breaks, hyphens and quotation marks."""
    return re.sub(r"[\s\-‐–’'\"“”`]", "", unicodedata.normalize("NFKC", text))


@pytest.fixture(scope="module")
def typeset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PDF by xelatex."""
    need(*printing.TEX, *READERS)
    checkout = checkouts.of_the_book(tmp_path_factory.mktemp("typeset"))
    done = run_pdf(checkout)
    assert done.stderr == ""
    return file_of(done, checkout)


@pytest.fixture(scope="module")
def pages(typeset: Path) -> list[str]:
    return pages_of(typeset)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkouts.of_the_book(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def printed(elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PDF where there is no latexmk."""
    need("chromium", *READERS)
    programs = tmp_path_factory.mktemp("bin")
    for folder in map(Path, os.environ["PATH"].split(":")):
        for program in folder.iterdir() if folder.is_dir() else ():
            if program.name != "latexmk" and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    done = run_pdf(elsewhere, PATH=str(programs))
    assert "printed by Chromium, the fallback: TeX (latexmk) is missing." in done.stderr
    assert "make pdf-deps" in done.stderr
    return shutil.copy(file_of(done, elsewhere), programs / "printed.pdf")


# ------------------------------------------------------------------ what must be in it, whoever made it


def cells() -> list[nbformat.NotebookNode]:
    return [cell for page in publish.pages() for cell in nbformat.read(page, 4).cells]


def outputs() -> list[dict]:
    return [output.get("data", {}) for cell in cells() for output in cell.get("outputs", [])]


def chapters() -> dict[Path, str]:
    found = (file for file in (ROOT / "book").rglob("*.md") if "_build" not in file.parts)
    return {file: file.read_text() for file in found}


def figure_captions() -> list[str]:
    return [cell.metadata.mystnb.figure.caption for cell in cells() if "figure" in cell.metadata.get("mystnb", {})]


def table_captions() -> list[str]:
    sources = [output.get("text/markdown", "") for output in outputs()] + list(chapters().values())
    written = [caption for text in sources for caption in re.findall(r"\{(?:list-)?table\} (.+)", text)]
    return [*written, show.caption(find.published_instrument(CALIBRATION, "full"))]


def charts_drawn() -> int:
    return sum("image/svg+xml" in output for output in outputs())


def numbers_taken() -> list[str]:
    """Every number and name that a chapter takes from a published run, as it must read."""
    values, taken = {}, []
    for page in publish.pages():  # two studies may have pages of the same name
        values[page.resolve()] = glue.values(publish.run_of(page))
    for depth in ("full", "deep", "forks"):
        if folder := find.published_instrument(CALIBRATION, depth):
            values[depth] = glue.values(Run(folder))
    for chapter, text in chapters().items():
        for page, name, form in re.findall(r"\{glue:text\}`([\w./-]+)::([\w.-]+):([^`]+)`", text):
            if page.startswith("calibration/") and Path(page).name not in values:
                continue  # a chapter says that it was not measured yet
            known = Path(page).name if page.startswith("calibration/") else (chapter.parent / page).resolve()
            taken.append(format(values[known][name], form))
    return taken


BOTH = pytest.mark.parametrize("made", ["typeset", "printed"])


@BOTH
def test_all_captions_are_there(made, request):
    text = squeezed("".join(pages_of(request.getfixturevalue(made))))
    wanted = figure_captions() + table_captions()
    assert len(wanted) > 30
    assert [caption for caption in wanted if squeezed(caption) not in text] == []


@BOTH
def test_charts_are_drawn_and_vector(made, request):
    file = request.getfixturevalue(made)
    assert len(tool("pdfimages", "-list", file).splitlines()) == 2, "a heading, and no picture made of pixels"
    assert charts_drawn() >= 6
    text = tool("pdftotext", file, "-").replace("\n", " ")
    assert sum(text.count(title) for title in IN_CHARTS) == charts_drawn()


@BOTH
def test_numbers_in_chapters_are_those_of_the_runs(made, request):
    text = squeezed("".join(pages_of(request.getfixturevalue(made))))
    taken = numbers_taken()
    assert len(taken) > 100
    assert [number for number in taken if squeezed(number) not in text] == []


@BOTH
def test_title_version_and_date_open_it(made, request):
    first = pages_of(request.getfixturevalue(made))[0]
    assert squeezed("What transformer inference costs") in squeezed(first)
    assert f"distilbench {metadata.version('distilbench')}" in first
    newest = max(paths.read_json(file)["created"] for file in paths.published_root().glob("*/*/config.json"))
    assert f"Measurements up to {newest[:10]}" in first


def without_head_and_foot(page: str) -> str:
    """The lines between the running title and the page's number."""
    lines = [line for line in page.splitlines() if line.strip() and HEAD not in line]
    return "\n".join(lines[:-1])


@BOTH
def test_no_page_is_blank(made, request):
    pages = pages_of(request.getfixturevalue(made))
    assert 30 <= len(pages) <= 150
    assert [i for i, page in enumerate(pages, 1) if len(squeezed(without_head_and_foot(page))) < SHORT] == []
    assert len(squeezed(without_head_and_foot(f"{HEAD} 0.1.0\n\n1.2 A section      7\n"))) == 0, "a blank page is found"


@BOTH
def test_no_word_reaches_the_edge_of_the_paper(made, request):
    """What is cut off is in the file all the same, but not on the page."""
    words = tool("pdftotext", "-bbox", request.getfixturevalue(made), "-")
    page = re.search(r'<page width="([\d.]+)" height="([\d.]+)"', words)
    width, height = float(page[1]), float(page[2])
    assert (round(width), round(height)) == (595, 842), "A4"
    cut = []
    for box in re.finditer(r'xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">(.*?)<', words):
        left, top, right, bottom = map(float, box.groups()[:4])
        if left < MARGIN_pt or right > width - MARGIN_pt or top < 20 or bottom > height - 20:
            cut.append(box[0])
    assert cut == []


# ------------------------------------------------------------------ typeset


def test_it_is_a_sound_file(typeset):
    assert "No syntax or stream encoding errors found" in tool("qpdf", "--check", typeset)


def test_the_first_page_of_the_book_is_its_first_chapter(pages):
    contents = next(page for page in pages if re.search(r"^\s*Contents", page))
    assert re.search(r"1\s+What transformer inference costs[ .]+1\n", contents)
    assert re.search(r"2\s+Results at a glance", contents)
    first = next(page for page in pages[2:] if "What transformer inference costs" in page)
    assert re.search(r"1\.1\s+Headline results", first)


def test_what_was_not_measured_is_said_in_words_not_in_code(typeset):
    source = (typeset.parents[1] / "latex" / "report.tex").read_text()
    said = "(J): not measured: "
    assert source.count(f"{said}no RAPL counter") >= 2
    assert source.count(f"{said}the energy pass was not asked for") >= 1, "which is no fault of the machine"
    code = re.findall(r"\\begin\{sphinxVerbatim\}.*?\\end\{sphinxVerbatim\}", source, re.DOTALL)
    assert len(code) > 10
    assert not any(said in block for block in code)


def test_works_are_listed_once_under_the_heading_of_their_chapter(pages):
    last = next(page for page in reversed(pages) if re.search(r"^\s*\d+\s+Bibliography\s", page))
    last = "".join(pages[pages.index(last) :])
    assert re.search(r"^\s*\d+\s+Bibliography\s+Chi-Chih Chang", last), "no second heading, no label"
    assert "[Sanh et al., 2019]" in " ".join(" ".join(pages).split())
    assert "References" not in last


def test_references_name_their_pages(pages):
    text = " ".join("".join(pages).split())
    assert re.search(r"How it is measured \(page \d+\) defines every term", text)
    assert "??" not in text


@pytest.mark.slow  # a third build; what makes it the same: the next test
def test_two_builds_are_the_same_bytes(typeset, elsewhere, printed):
    """Also elsewhere, later, in another time zone and language, and after another kind of build in the same place."""
    done = run_pdf(elsewhere, TZ="Pacific/Auckland", LC_ALL="C")
    assert file_of(done, elsewhere).read_bytes() == typeset.read_bytes()


def test_the_date_is_that_of_the_newest_run_unless_told_otherwise(typeset, monkeypatch):
    newest = publish.newest()
    told = tool("pdfinfo", "-isodates", typeset)
    assert datetime.fromisoformat(re.search(r"CreationDate:\s+(\S+)", told)[1]) == newest
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert printing._environment()["SOURCE_DATE_EPOCH"] == "86400"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert printing._environment()["SOURCE_DATE_EPOCH"] == str(int(newest.timestamp()))


LOG = r"""
LaTeX Font Info:    Trying to load font information on input line 12.
Overfull \hbox (3.5pt too wide) in paragraph at lines 10--12
Underfull \hbox (badness 10000) in paragraph at lines 20--22
"""


@pytest.mark.parametrize(
    "line",
    [
        r"Overfull \hbox (31.4pt too wide) in paragraph at lines 100--102",
        r"Overfull \vbox (120.0pt too high) has occurred while \output is active []",
        "! Undefined control sequence.",
        "LaTeX Warning: Reference `method:nowhere' on page 3 undefined on input line 99.",
        "LaTeX Warning: Hyper reference `method:nowhere' on page 3 undefined on input line 99.",
        "LaTeX Warning: Citation `nobody' on page 3 undefined on input line 99.",
        "LaTeX Warning: Label `twice' multiply defined.",
        "Missing character: There is no ✓ (U+2713) in font texgyrepagella!",
    ],
)
def test_what_a_reader_would_miss_ends_the_build(line, monkeypatch, tmp_path):
    assert printing.complaints(LOG) == []
    assert printing.complaints(f"{LOG}{line}\n") == [line]
    checkout = checkouts.of_the_book(tmp_path / "checkout")
    monkeypatch.setenv("DISTILBENCH_ROOT", str(checkout))
    monkeypatch.setattr(printing.shutil, "which", lambda program: f"/usr/bin/{program}")

    def builder(*_: str, env: dict[str, str]) -> None:
        (checkout / "book" / "_build" / "latex").mkdir(parents=True)
        (checkout / "book" / "_build" / "latex" / "report.log").write_text(LOG + line)

    monkeypatch.setattr(build, "call_builder", builder)
    with pytest.raises(DistilbenchError, match=re.escape(line)):
        printing.build()
    assert not (checkout / "book" / "_build" / "pdf").exists()


def test_a_build_leaves_it_to_the_extension_to_verify(monkeypatch):
    """Which does it in every build, the bare command's too: twice would be twice as long."""
    commands = []
    monkeypatch.setattr(build, "_call", lambda command, _: commands.append(command))
    monkeypatch.setattr(publish, "problems", lambda _: pytest.fail("it verified"))
    build.call_builder()
    assert "build" in commands[0]


def test_what_tex_complains_of_is_said():
    script = "print('many lines'); print('! Package fontspec Error: The font cannot be found.'); exit(12)"
    with pytest.raises(DistilbenchError, match="! Package fontspec Error: The font cannot be found") as failed:
        build._call([sys.executable, "-c", script])
    assert "many lines" not in str(failed.value)


@pytest.mark.parametrize(("complaint", "hint"), [("! Font X cannot be found.", True), ("! Undefined macro.", False)])
def test_a_missing_part_of_tex_can_be_installed(complaint, hint, monkeypatch):
    def fail(*_: str, env: dict[str, str]) -> None:
        raise DistilbenchError(f"jupyter-book could not build the book:\n{complaint}")

    monkeypatch.setattr(build, "call_builder", fail)
    monkeypatch.setattr(printing.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(DistilbenchError, match=re.escape(complaint)) as failed:
        printing._typeset()
    assert ("make pdf-deps" in str(failed.value)) == hint


@pytest.mark.parametrize(("left", "missing"), [([], "report.log"), (["report.log"], "report.pdf")])
def test_a_tex_that_ends_well_without_its_files_is_not_believed(left, missing, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILBENCH_ROOT", str(checkouts.of_the_book(tmp_path / "checkout")))
    folder = tmp_path / "checkout" / "book" / "_build" / "latex"

    def end(*_: str, env: dict[str, str]) -> None:
        folder.mkdir(parents=True)
        for name in left:
            (folder / name).touch()

    monkeypatch.setattr(build, "call_builder", end)
    with pytest.raises(DistilbenchError, match=rf"TeX ended without an error and without .*{missing}"):
        printing._typeset()


def test_without_tex_and_browser_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr(printing.shutil, "which", lambda program: None)
    with pytest.raises(DistilbenchError, match=r"latexmk, xelatex missing\) or, .* Chromium. `make pdf-deps`"):
        printing.build()


# ------------------------------------------------------------------ printed by the browser


def test_the_page_for_print_has_pictures_and_no_scripts_for_them(elsewhere, printed):
    page = (elsewhere / "book" / "_build" / "singlehtml" / "intro.html").read_text()
    assert page.count('class="db-chart"') == charts_drawn()
    assert "vega-bundle.js" not in page
    assert "distilbench.js" not in page
    assert "Show code cell" not in tool("pdftotext", printed, "-")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no display >&2; exit 3", r"could not print .*intro\.html:\nno display"),
        ("echo no page >&2", r"could not print .*intro\.html:\nno page"),
        ('for word; do case $word in --print-to-pdf=*) echo "<html>" >"${word#*=}";; esac; done', "could not print"),
        ("exec sleep 60", r"did not print .*intro\.html within 0\.5 s"),
    ],
)
def test_a_browser_that_cannot_print_is_named(monkeypatch, tmp_path, script, said):
    browser = tmp_path / "chromium"
    browser.write_text(f"#!/bin/sh\n{script}\n")
    browser.chmod(0o755)
    monkeypatch.setattr(printing, "BROWSERS", (str(browser),))
    monkeypatch.setattr(printing, "TEX", ("no-such-tex",))
    if "sleep" in script:
        monkeypatch.setattr(printing, "PRINTING_S", 0.5)
    monkeypatch.setattr(build, "call_builder", lambda *_: None)
    with pytest.raises(DistilbenchError, match=f"chromium {said}"):
        printing.build()


# ------------------------------------------------------------------ columns


def column_of(head: str, *cells: str) -> latex_extension.Column:
    rows = [nodes.row("", nodes.entry("", nodes.paragraph(text=text))) for text in (head, *cells)]
    nodes.tgroup("", nodes.thead("", rows[0]), nodes.tbody("", *rows[1:]))
    return latex_extension.Column([row[0] for row in rows])


NUMBERS = column_of("variance between processes", "99.5", "–", "(100.25)")
NAMES = column_of("length", "fixed-128", "longest")


def test_columns_that_fit_are_as_wide_as_their_cells():
    assert latex_extension.specification([NAMES, NUMBERS]) == r">{\small}l>{\small}r"


def test_columns_of_a_wide_table_share_the_line_and_break_heads_only():
    written = latex_extension.specification([NAMES, *[NUMBERS] * 4])
    widths = [int(width) for width in re.findall(r"\\X\{(\d+)\}\{96\}", written)]
    assert len(widths) == 5
    assert sum(widths) <= 96
    assert widths[0] == len("fixed-128") + latex_extension.GAP, "a short cell is not broken"
    assert min(widths) >= len("processes") + latex_extension.GAP, "nor a word of a head"
    assert written.count("raggedleft") == 4
    assert written.count("raggedright") == 1


@pytest.mark.parametrize(("count", "size"), [(8, "small"), (9, "footnotesize"), (10, "scriptsize"), (20, "scriptsize")])
def test_more_columns_have_smaller_letters(count, size):
    written = latex_extension.specification([NUMBERS] * count)
    assert written.count(f">{{\\{size}\\raggedleft") == count
    shares = re.findall(r"\\X\{(\d+)\}\{(\d+)\}", written)
    assert sum(int(width) for width, _ in shares) <= int(shares[0][1])


def test_what_is_html_only_takes_no_room():
    cell = nodes.entry("", nodes.paragraph("", "", nodes.raw("", "<span>" * 50, format="html"), nodes.Text("(13.11)")))
    nodes.tbody("", nodes.row("", cell))
    assert latex_extension.Column([cell]).natural == len("(13.11)")
