# SPDX-License-Identifier: Apache-2.0
"""An HTML page in one file: no network, no script; texts are escaped, tables scroll, light and dark both work."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from detectron_libra.report.markup import Html, element, escape
from detectron_libra.report.style import STYLE
from detectron_libra.report.texts import DASH, number

#: What a browser may load for the page: nothing. Styles and pictures are inside.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading of its own.

    Attributes:
        title: the heading.
        parts: ``Html``; other texts become paragraphs.
    """

    title: str
    parts: Sequence[object]


def page(title: str, sections: Sequence[Section], *, intro: Sequence[object] = ()) -> str:
    """A whole page, to be written as UTF-8.

    Args:
        title: of the window and the first heading.
        sections: in their order; links to them stand at the top.
        intro: parts before the first section.
    """
    places = [f"{k}-{_slug(section.title)}" for k, section in enumerate(sections, start=1)]
    links = [element("a", s.title, href=f"#{place}") for s, place in zip(sections, places, strict=True)]
    bodies = [
        element("section", element("h2", s.title, id=place), *map(_part, s.parts))
        for s, place in zip(sections, places, strict=True)
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", Html(STYLE)),
    )
    content = [element("h1", title), *map(_part, intro), element("nav", *links) if links else "", *bodies]
    body = element("body", element("main", *content))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def paragraph(*parts: object) -> Html:
    """A paragraph."""
    return element("p", *parts)


def heading(text: str) -> Html:
    """A heading inside a section."""
    return element("h3", text)


def strong(text: object) -> Html:
    """Text that stands out."""
    return element("b", text)


def note(text: object) -> Html:
    """A sentence that stands out: what is missing, or has to be known."""
    return element("p", text, class_="note")


def code(text: str) -> Html:
    """Lines as they are, such as YAML."""
    return element("pre", element("code", text))


def details(summary: str, *parts: object) -> Html:
    """What is shown when its summary is clicked."""
    return element("details", element("summary", summary), *map(_part, parts))


def facts(values: Mapping[str, object]) -> Html:
    """Names with their values."""
    pairs = (element("dt", name) + element("dd", _cell_text(value)) for name, value in values.items())
    return element("dl", *map(Html, pairs))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    caption: str = "",
    texts: int = 1,
    long: bool = False,
) -> Html:
    """A table that scrolls by itself where the screen is narrow.

    Args:
        head: names of the columns.
        rows: cells: texts, ``Html``, numbers (three digits), None for a dash.
        caption: stands above.
        texts: so many columns at the left are texts; the others are numbers and end at the right.
        long: texts may break anywhere, and on a narrow screen cells stand below each other.
    """
    groups = [None if column < texts else "n" for column in range(len(head))]
    top = (element("th", name, class_=g, scope="col") for name, g in zip(head, groups, strict=True))
    body = (
        element("tr", *(_cell(k, cell, groups[k], head[k] if long else None) for k, cell in enumerate(row)))
        for row in rows
    )
    inside = element(
        "table",
        element("thead", element("tr", *top)),
        element("tbody", *body),
        class_="long" if long else None,
    )
    # The caption stays where it is when the table scrolls. A keyboard scrolls only what it can reach.
    above = element("p", caption, class_="caption") if caption else ""
    scrolling = element(
        "div", inside, class_="wide", tabindex="0", role="region", aria_label=caption or "table"
    )
    return element("div", above, scrolling)


def figure(content: Html, caption: str, *, title: str = "") -> Html:
    """A plot or a picture with a line below it.

    Args:
        content: the plot.
        caption: what it shows.
        title: stands in front of the caption.
    """
    front = strong(title) + (". " if caption else "") if title else ""
    return element("figure", content, element("figcaption", Html(front), caption))


def figures(*parts: Html, small: bool = False) -> Html:
    """Figures beside each other, as many as the screen is wide for; ``small`` ones are three where plots are two."""
    return element("div", *parts, class_="figures small" if small else "figures")


def picture(jpeg: bytes, *, alt: str, size: tuple[int, int]) -> Html:
    """A JPEG inside the page.

    Args:
        jpeg: the file.
        alt: what it shows, for those who cannot see it.
        size: width and height in pixels.
    """
    data = base64.b64encode(jpeg).decode("ascii")
    return element("img", src=f"data:image/jpeg;base64,{data}", alt=alt, width=size[0], height=size[1])


def _part(part: object) -> Html:
    return part if isinstance(part, Html) else paragraph(part)


def _cell(place: int, value: object, group: str | None, column: str | None) -> Html:
    if place == 0:
        return element("th", _cell_text(value), class_=group, scope="row")
    return element("td", _cell_text(value), class_=group, data_column=column)


def _cell_text(value: object) -> Html:
    if value is None:
        return escape(DASH)
    if isinstance(value, Real) and not isinstance(value, Integral):
        return escape(number(float(value)))
    return escape(value)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
