"""What a printed book needs of Sphinx: a title page that can be repeated, vector charts, columns that fit the page."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import vl_convert
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.transforms.post_transforms.images import ImageConverter

from distilbench.publication import publish

SCALE_percent = 65  # of charts: makes their letters as large as those of tables
SIZES = ((r"\small", 96), (r"\footnotesize", 108), (r"\scriptsize", 124))  # of letters in tables; how many fill a line
GAP = 3  # characters between columns
SHORT = 16  # characters; cells up to that stay in one line
TALL = 2400  # characters in a table that may not fit on one page, and is broken between pages


def fill_in_title_page(app: Sphinx, config: Config) -> None:
    """Version and date: not the day of the build but that of the newest run, so that equal content is an equal book."""
    newest = publish.newest()
    config.release = metadata.version("distilbench")
    config.today = f"Measurements up to {newest:%Y-%m-%d}" if newest else "Without measurements"


class ChartAsPdf(ImageConverter):
    """Charts are SVG in the notebooks, in the ink of the page around them; LaTeX takes PDF, and its page is white."""

    conversion_rules: ClassVar = [("image/svg+xml", "application/pdf")]

    def is_available(self) -> bool:
        """Always: the renderer of the charts is a dependency."""
        return True

    def handle(self, node: nodes.image) -> None:
        """Also makes the chart's letters as large as those of a table."""
        super().handle(node)
        node.setdefault("scale", SCALE_percent)

    def convert(self, _from: str, _to: str) -> bool:
        """Writes the chart in black ink."""
        drawn = Path(_from).read_text(encoding="utf-8").replace("currentColor", "black")
        Path(_to).write_bytes(_in_order(vl_convert.svg_to_pdf(drawn)))
        return True


def _in_order(pdf: bytes) -> bytes:
    """The renderer lists graphics states in the order of a hash table; sorted, equal charts are equal bytes."""
    state = rb"\s+/gs\d+ \d+ 0 R"
    return re.sub(rb"(?:%b)+" % state, lambda found: b"".join(sorted(re.findall(state, found[0]))), pdf)


class FirstPageAsChapter(SphinxPostTransform):
    """The book's first page is a chapter like the others, and comes first; Sphinx would make one of each section."""

    builders = ("latex",)
    default_priority = 300

    def run(self) -> None:
        """Moves what stands before the other pages into a section of its own."""
        root = self.document.next_node(nodes.section)
        others = next((i for i, child in enumerate(root) if "toctree-wrapper" in child.get("classes", [])), len(root))
        title, own = root[0], root[1:others]
        chapter = nodes.section("", title.deepcopy(), *own, ids=root["ids"], docname=root.get("docname", ""))
        root["ids"] = []
        root[1:others] = [chapter]


class FittingColumns(SphinxPostTransform):
    """Tables as wide as their content, at most as the page; numbers to the right."""

    builders = ("latex",)
    default_priority = 300

    def run(self) -> None:
        """Puts LaTeX's specification of the columns before each table; empty cells get no paragraph, a line high."""
        for table in list(self.document.findall(nodes.table)):
            for entry in table.findall(nodes.entry):
                entry[:] = entry[:] if entry.astext() else []
            rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
            columns = [Column(list(entries)) for entries in zip(*rows, strict=True)]
            if len(table.astext()) > TALL:  # Sphinx does so for many rows, not for long ones
                table["classes"].append("longtable")
            table.parent.insert(table.parent.index(table), addnodes.tabular_col_spec(spec=specification(columns)))


class Column:
    """The cells of one column, its head among them; widths in characters.

    Attributes:
        natural: what it takes to break no cell into lines.
        least: what it takes to break no word, and no short cell.
        right: whether it holds numbers, or ranges of them.
    """

    def __init__(self, entries: list[nodes.entry]) -> None:
        words = [word for entry in entries for word in re.split(r"[\s-]", _text(entry))]
        body = [_text(entry) for entry in entries if not isinstance(entry.parent.parent, nodes.thead)]
        self.natural = max(len(_text(entry)) for entry in entries)
        self.least = max(*map(len, words), min(SHORT, max(map(len, body), default=0)))
        self.right = all(re.match(r"[(-]?\d|–", text) for text in body)

    def written(self, size: str, width: str = "") -> str:
        """For LaTeX; without a width it is as wide as its widest cell."""
        if not width:
            return f">{{{size}}}{'r' if self.right else 'l'}"
        return f">{{{size}\\ragged{'left' if self.right else 'right'}\\arraybackslash}}{width}"


def _text(entry: nodes.entry) -> str:
    """What is printed of a cell: not the HTML in it."""
    return "".join(text for text in entry.findall(nodes.Text) if not isinstance(text.parent, nodes.raw))


def specification(columns: list[Column]) -> str:
    """LaTeX's specification of the columns, in the largest letters in which no word need be broken, else the smallest.

    Where whole cells fit into the line, TeX finds the widths; else the line is shared out.
    """
    least, natural = (sum(getattr(column, name) + GAP for column in columns) for name in ("least", "natural"))
    size, line = next((size for size in SIZES if least <= size[1]), SIZES[-1])
    if natural <= line:
        return "".join(column.written(size) for column in columns)
    spare = max(0.0, line - least) / max(1, natural - least)
    widths = [int(column.least + spare * (column.natural - column.least)) + GAP for column in columns]
    shares = (rf"\X{{{width}}}{{{max(line, sum(widths))}}}" for width in widths)
    return "".join(column.written(size, share) for column, share in zip(columns, shares, strict=True))


class ReasonInsteadOfChart(SphinxPostTransform):
    """Where nothing could be measured there is text in the place of the chart; in print it is text, not code."""

    builders = ("latex",)
    default_priority = 300

    def run(self) -> None:
        """Makes paragraphs of results that are plain text (what a cell prints is a stream, and stays as it is)."""
        for block in list(self.document.findall(nodes.literal_block)):
            if "text_plain" in block["classes"]:
                block.replace_self(nodes.paragraph(text=block.astext()))


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers everything with Sphinx."""
    app.connect("config-inited", fill_in_title_page)
    for transform in (ChartAsPdf, FirstPageAsChapter, FittingColumns, ReasonInsteadOfChart):
        app.add_post_transform(transform)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
