"""The PowerPoint file of the slides: pandoc with reference.pptx, and what pandoc leaves to arrange.

How the slides look (places, fonts, colours, the rule and the number of each slide) is in reference.pptx, pandoc's own
reference document restyled: change it in any program that edits slide masters.
"""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pypandoc
from pptx import Presentation
from pptx.dml.color import RGBColor
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.util import Inches, Pt

from distilbench import paths
from distilbench.errors import DistilbenchError


class Box(NamedTuple):
    """A place on a slide of 10 by 5.625 inches (16:9); in inches."""

    left: float
    top: float
    width: float
    height: float


REFERENCE = Path(__file__).parent / "reference.pptx"
BODY, RIGHT = Box(0.5, 1.3, 9.0, 3.5), Box(4.6, 1.3, 4.9, 3.5)  # as the layouts of reference.pptx have them
FOOT, FOOT_SIZE, GREY = Box(0.5, 4.88, 8.5, 0.5), Pt(9), RGBColor.from_string("5F6B7A")
AUTHOR = "The distilbench authors"
TABLE_SIZES = {10: 12, 13: 10, 99: 9}  # of the text, by the most rows that it is for
CHARACTER, LINE = 0.54, 1.4  # how wide a character, and how high a line, is in the wider of the usual fonts
CELL_SIDE, CELL_ABOVE, MOST_AIR = 0.08, 0.03, 0.2  # inches beside the text of a cell, above it, and more where it fits


def write(source: Path, target: Path, moment: datetime) -> Path:
    """Makes a PowerPoint file of pandoc's Markdown; equal content and pictures give equal bytes.

    Args:
        source: the Markdown; pictures are named relative to it.
        target: the file.
        moment: the only time that the file holds, in UTC.

    Raises:
        DistilbenchError: pandoc is not there, or complains of the source.
    """
    deck, out = Presentation(io.BytesIO(_pandoc(source))), io.BytesIO()
    arrange(deck)
    about = deck.core_properties
    about.author = about.last_modified_by = AUTHOR
    about.created = about.modified = moment.replace(tzinfo=None, microsecond=0)
    deck.save(out)
    paths.write_atomic(target, _dated(out.getvalue(), moment))
    return target


def _pandoc(source: Path) -> bytes:
    try:
        program = pypandoc.get_pandoc_path()
    except OSError:
        raise DistilbenchError("there is no pandoc: pip install pypandoc-binary brings one") from None
    options = ["--from=markdown", "--to=pptx", "--output=-", "--slide-level=1", "--fail-if-warnings"]
    command = [program, *options, f"--reference-doc={REFERENCE}", source.name]
    env = os.environ | {"LC_ALL": "C.UTF-8"}  # pandoc takes arguments and file names in the locale's encoding
    done = subprocess.run(command, cwd=source.parent, env=env, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        text = done.stderr.decode("utf-8", errors="replace").strip()
        raise DistilbenchError(f"pandoc could not make the slides: {text or f'it ended with code {done.returncode}'}")
    return done.stdout


def _dated(file: bytes, moment: datetime) -> bytes:
    """A zip file with every entry of that time: python-pptx writes the time of writing."""
    out, date = io.BytesIO(), max(moment.timetuple()[:6], (1980, 1, 1, 0, 0, 0))  # zip knows no earlier one
    with zipfile.ZipFile(io.BytesIO(file)) as given, zipfile.ZipFile(out, "w") as made:
        for name in given.namelist():
            entry = zipfile.ZipInfo(name, date)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            made.writestr(entry, given.read(name))
    return out.getvalue()


# ------------------------------------------------------------------ what pandoc leaves to arrange


def arrange(deck: Any) -> None:
    """Pictures as large as their place, tables over the whole slide, captions at the foot, every shape with an id."""
    for slide in deck.slides:
        for number, shape in enumerate(slide.shapes, 2):
            if shape.has_text_frame and shape.element.find("{*}nvSpPr/{*}cNvSpPr").get("txBox"):
                _as_caption(shape)
            elif getattr(shape, "has_table", False):
                _lay_out(shape)
            elif hasattr(shape, "image"):
                _fit(shape)
            shape.element.find(".//{*}cNvPr").set("id", str(number))  # pandoc gives pictures and captions 0 and 1


def _put(shape: Any, box: Box) -> None:
    shape.left, shape.top, shape.width, shape.height = (round(inches * 914400) for inches in box)  # EMU per inch


def _as_caption(shape: Any) -> None:
    """A small grey text at the foot; pandoc makes it a second copy of the content's placeholder."""
    kind = shape.element.find("{*}nvSpPr/{*}nvPr")
    for placeholder in kind:
        kind.remove(placeholder)
    _put(shape, FOOT)
    frame = shape.text_frame
    frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.BOTTOM
    frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = 0
    for paragraph in frame.paragraphs:
        paragraph.alignment = PP_ALIGN.LEFT
        for run in paragraph.runs:
            run.font.size, run.font.color.rgb = FOOT_SIZE, GREY


def _fit(picture: Any) -> None:
    """As large as its place allows; its alternative text without the name of the file that pandoc adds."""
    wide, high = picture.image.size
    width = min(RIGHT.width, RIGHT.height * wide / high)
    height = width * high / wide
    _put(picture, Box(RIGHT.left + (RIGHT.width - width) / 2, RIGHT.top, width, height))
    about = picture.element.find(".//{*}cNvPr")
    about.set("descr", re.sub(r"\s+\S+\.png$", "", about.get("descr", "")))


def _lay_out(shape: Any) -> None:
    """A table over the whole slide: text as large as its rows allow, columns as wide as their longest text asks for."""
    table, rows = shape.table, list(shape.table.rows)
    size = next(size for most, size in TABLE_SIZES.items() if len(rows) <= most)
    longest = [max(len(cell.text) for cell in column) for column in zip(*(row.cells for row in rows), strict=True)]
    shares = [min(max(length, 8), 42) + 4 for length in longest]
    widths = [BODY.width * share / sum(shares) for share in shares]
    lines = [max(map(_lines, row.cells, widths, [size] * len(widths))) for row in rows]
    line = size * LINE / 72
    needed = sum(lines) * line + len(rows) * 2 * CELL_ABOVE
    air = min(max(BODY.height - needed, 0) / len(rows), MOST_AIR)
    _put(shape, BODY._replace(height=needed + air * len(rows)))
    for column, width in zip(table.columns, widths, strict=True):
        column.width = Inches(width)
    for row in rows:
        row.height = Inches(line + 2 * CELL_ABOVE + air)  # whoever shows it makes room for further lines
        for cell in row.cells:
            cell.vertical_anchor = MSO_ANCHOR.MIDDLE
            cell.margin_left = cell.margin_right = Inches(CELL_SIDE)
            cell.margin_top = cell.margin_bottom = Inches(CELL_ABOVE)
            for run in (run for paragraph in cell.text_frame.paragraphs for run in paragraph.runs):
                run.font.size = Pt(size)


def _lines(cell: Any, width: float, size: int) -> int:
    """How many lines a cell's text takes, estimated."""
    return max(math.ceil(len(cell.text) * size * CHARACTER / 72 / (width - 2 * CELL_SIDE)), 1)
