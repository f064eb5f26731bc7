"""Drawings as inline SVG: text stays text, points are pixels, colours follow the page.

What is drawn lives with each analysis; here it gets its size, its style and its place in a page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure as Canvas

INK, RULE = "#101112", "#d0d1d2"
"""Stand-ins in the drawing for the page's own colours of text and of hairlines."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "axes.labelsize": 11.0,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "text.color": INK,
    "text.parse_math": False,  # a variant's name is not a formula
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    # Blue, orange and grey: told apart by people of any colour vision, and on white as on black.
    "axes.prop_cycle": cycler(color=["#2a7ab9", "#d2691e", "#848b93"]),
}

NO_METADATA = ("Creator", "Date", "Format", "Type")

DOTS_PER_INCH = 144
"""A unit of the drawing is 1/72 inch: two pixels to each."""


@dataclass(frozen=True)
class Size:
    """Width and height of a drawing, in CSS pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Figure:
    """A drawing in a page.

    Attributes:
        name: unique in the page.
        caption: what it shows.
        alt: the drawing in words, for those who do not see it.
        svg: it, as an SVG element.
        narrow: the same for a narrow window, if it is drawn another way there.
    """

    name: str
    caption: str
    alt: str
    svg: str
    narrow: str | None = None


HALF = Size(352, 300)
"""Stands beside another, and fills a phone."""

Draw = Callable[[Any], str]


def figure(name: str, caption: str, draw: Draw, size: Size = HALF, narrow: Size | None = None) -> Figure:
    """Draw once, or twice if a narrow window needs another shape.

    Args:
        name: unique in the page; equal names and data give equal bytes.
        draw: draws onto matplotlib's Axes and returns the figure in words.
    """
    svg, alt = _svg(name, draw, size)
    other = None if narrow is None else _svg(f"{name}-narrow", draw, narrow)[0]
    return Figure(name, caption, alt, svg, other)


def _svg(name: str, draw: Draw, size: Size) -> tuple[str, str]:
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=(size.width / 72, size.height / 72), layout="constrained")
        axes = canvas.add_subplot()
        alt = draw(axes)
        out = io.StringIO()
        canvas.savefig(out, format="svg", dpi=DOTS_PER_INCH, metadata=dict.fromkeys(NO_METADATA))
    return _inline(out.getvalue(), name, size, alt), alt


def _inline(document: str, name: str, size: Size, alt: str) -> str:
    """An SVG file as an element of a page: no prologue, no names of namespaces, identifiers unique in the page."""
    body = document[document.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace(INK, "var(--ink)").replace(RULE, "var(--rule)")
    words = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f'<svg role="img" aria-label="{words}" viewBox="0 0 {size.width} {size.height}" '
        f'width="{size.width}" height="{size.height}">{body}'
    ).strip()
