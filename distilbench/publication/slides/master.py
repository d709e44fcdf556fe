"""How the slides look: places, sizes and colours, and with them pandoc's own reference document restyled.

Places are in inches of a slide of 10 by 5.625 (16:9); sizes of text in points.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from distilbench.report import charts


class Box(NamedTuple):
    """A place on a slide."""

    left: float
    top: float
    width: float
    height: float


TITLE, RULE = Box(0.5, 0.25, 9.0, 0.85), Box(0.5, 1.14, 9.0, 0.03)
BODY, LEFT, RIGHT = Box(0.5, 1.3, 9.0, 3.5), Box(0.5, 1.3, 3.95, 3.5), Box(4.6, 1.3, 4.9, 3.5)
FOOT, NUMBER = Box(0.5, 4.88, 8.5, 0.5), Box(9.0, 5.13, 0.5, 0.25)
#: Where the layouts that pandoc uses here have their placeholders, the title first.
LAYOUTS = {
    "Title Slide": (Box(0.8, 1.0, 8.4, 1.3), Box(0.8, 2.5, 8.4, 1.6)),
    "Title and Content": (TITLE, BODY),
    "Two Content": (TITLE, LEFT, RIGHT),
}
TITLE_SIZE, TEXT_SIZE, BODY_SIZES, FOOT_SIZE = 22, 18, (14, 12), 9  # TEXT_SIZE: where nothing else is on a slide
FONT, ACCENT, NIGHT, GREY = "Arial", charts.PALETTE[0].removeprefix("#"), "12263A", "5F6B7A"
#: python-pptx draws on slides, not on layouts: what these show on every slide is written out.
DRAWN = """<p:sp {ns}><p:nvSpPr><p:cNvPr id="{id}" name="{name}"/><p:cNvSpPr/><p:nvPr userDrawn="1"/></p:nvSpPr><p:spPr>
<a:xfrm><a:off x="{left}" y="{top}"/><a:ext cx="{width}" cy="{height}"/></a:xfrm><a:prstGeom prst="rect"><a:avLst/>
</a:prstGeom>{fill}</p:spPr><p:txBody><a:bodyPr lIns="0" tIns="0" rIns="0" bIns="0" anchor="b"/><a:lstStyle/><a:p>
<a:pPr algn="r"/>{text}</a:p></p:txBody></p:sp>"""
COLOUR = '<a:solidFill><a:srgbClr val="{}"/></a:solidFill>'
NUMBER_FIELD = f"""<a:fld id="{{5A1C3C52-6B1E-4E0E-9A6B-0D6C2B8F4E11}}" type="slidenum">
<a:rPr lang="en-US" sz="{FOOT_SIZE}00">{COLOUR.format(GREY)}</a:rPr><a:t>‹#›</a:t></a:fld>"""
LEVEL = """<a:lvl1pPr {ns} algn="l" {indent}><a:defRPr sz="{size}00" b="{bold}">{colour}</a:defRPr></a:lvl1pPr>"""


def theme(name: str, content: bytes) -> bytes:
    """Our font and the colour of the charts in the place of the theme's."""
    if name != "ppt/theme/theme1.xml":
        return content
    text = re.sub(r'(<a:(?:major|minor)Font><a:latin typeface=)"[^"]*"', rf'\1"{FONT}"', content.decode())
    return re.sub(r'(<a:accent1><a:srgbClr val=)"\w+"', rf'\1"{ACCENT}"', text).encode()


def restyle(deck: Any) -> None:
    """Master and layouts: places, sizes and colours of text, a rule under the title, the slide's number."""
    _place(deck.slide_master, (TITLE, BODY))
    styles = deck.slide_master.element.find("{*}txStyles")
    _levels(styles.find("{*}titleStyle"), (TITLE_SIZE,), bold=True)
    _levels(styles.find("{*}bodyStyle"), BODY_SIZES)
    for layout in deck.slide_layouts:
        _place(layout, LAYOUTS.get(layout.name, ()))
        if layout.name == "Title Slide":
            _first(layout)
        elif layout.name in LAYOUTS:
            if BODY in LAYOUTS[layout.name]:
                _text(layout.placeholders[1], TEXT_SIZE, "")
            _draw(layout, 20, "Rule", RULE, COLOUR.format(ACCENT), "")
            _draw(layout, 21, "Number", NUMBER, "<a:noFill/>", NUMBER_FIELD)


def _place(holder: Any, boxes: tuple[Box, ...]) -> None:
    """Placeholders to their places, without styles of their own; text starts at the very edge, titles stand on it."""
    for shape, box in zip(holder.placeholders, boxes, strict=False):
        put(shape, box)
        body, own = (shape.element.find(f"{{*}}txBody/{{*}}{name}") for name in ("bodyPr", "lstStyle"))
        for side in ("lIns", "tIns", "rIns", "bIns"):
            body.set(side, "0")
        body.set("anchor", "b" if box.top < RULE.top else "t")
        own.clear()


def _levels(levels: Any, sizes: tuple[int, ...], bold: bool = False) -> None:
    """Sizes by level, everything to the left, bullets close to their text, air between paragraphs."""
    for number, (level, size) in enumerate(zip(levels, sizes, strict=False), 1):
        level.set("algn", "l")
        level.find("{*}defRPr").attrib.update({"sz": f"{size}00", "b": str(int(bold))})
        if level.find("{*}buChar") is not None:
            level.attrib.update({"marL": str(number * 182880), "indent": "-182880"})
            level.find("{*}spcBef/{*}spcPct").set("val", "45000")


def _first(layout: Any) -> None:
    """The title slide: dark, with light text."""
    from pptx.dml.color import RGBColor

    layout.background.fill.solid()
    layout.background.fill.fore_color.rgb = RGBColor.from_string(NIGHT)
    title, text = list(layout.placeholders)[:2]
    _text(title, 34, "FFFFFF", bold=True)
    _text(text, 16, "C9D6E2", indent='marL="0" indent="0"')


def _text(shape: Any, size: int, colour: str, bold: bool = False, indent: str = "") -> None:
    """The size and colour of a placeholder's text, where they differ from the master's."""
    from pptx.oxml import parse_xml
    from pptx.oxml.ns import nsdecls

    level = LEVEL.format(
        ns=nsdecls("a"), size=size, bold=int(bold), colour=colour and COLOUR.format(colour), indent=indent
    )
    shape.element.find("{*}txBody/{*}lstStyle").append(parse_xml(level))


def _draw(layout: Any, number: int, name: str, box: Box, fill: str, text: str) -> None:
    from pptx.oxml import parse_xml
    from pptx.oxml.ns import nsdecls

    place = dict(zip(Box._fields, _emu(box), strict=True))
    drawn = DRAWN.format(ns=nsdecls("p", "a"), id=number, name=name, fill=fill, text=text, **place)
    layout.shapes.element.append(parse_xml(drawn))


def put(shape: Any, box: Box) -> None:
    """Moves and sizes a shape."""
    shape.left, shape.top, shape.width, shape.height = _emu(box)


def _emu(box: Box) -> list[int]:
    """In English metric units, of which an inch has 914,400."""
    return [round(inches * 914400) for inches in box]
