# SPDX-License-Identifier: Apache-2.0
"""Elements of HTML and SVG; text is escaped where it enters one, whatever a class or a file is called."""

from __future__ import annotations

import html
import re

#: What XML cannot hold: control characters, halves of surrogate pairs.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Elements that HTML closes by itself.
VOID = frozenset({"br", "col", "img", "meta"})


class Html(str):
    """Markup, which enters an element as it is; every other text is escaped."""

    __slots__ = ()


def escape(value: object) -> Html:
    """A value as text of an element or an attribute; None is nothing, ``Html`` stays as it is."""
    if isinstance(value, Html):
        return value
    text = "" if value is None else str(value)
    return Html(html.escape(_FORBIDDEN.sub("\ufffd", text)))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """``<name attribute="…">children</name>``.

    Args:
        name: of the element.
        children: ``Html`` or what is escaped.
        attributes: ``class_`` is class, ``fill_opacity`` is fill-opacity; numbers get two decimals, one that is None
            is left out.
    """
    pairs = (
        (key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None
    )
    inside = "".join(f' {key}="{_attribute(value)}"' for key, value in pairs)
    if name in VOID:
        return Html(f"<{name}{inside}/>")
    return Html(f"<{name}{inside}>{''.join(map(escape, children))}</{name}>")


def _attribute(value: object) -> str:
    return pixels(value) if isinstance(value, float) else escape(value)


def pixels(value: float) -> str:
    """A coordinate with two decimals at most."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
