# SPDX-License-Identifier: Apache-2.0
"""A page is one file: well-formed, escaped, without a script or an address, for every width and for light and dark."""

import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from detectron_libra.report import page as p
from detectron_libra.report.markup import Html, element, escape
from detectron_libra.report.style import STYLE
from detectron_libra.report.svg import Series, line_plot
from detectron_libra.report.texts import number, percent
from tests.report import reading

BAD = '</td><script src="http://x/y.js">&amp;'


class Seen(HTMLParser):
    """Elements and attributes as a browser finds them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def example():
    plot = line_plot([Series(BAD, [0, 1], [1.0, 2.0])], title=BAD)
    parts = [BAD, p.note(BAD), p.code(BAD), p.facts({BAD: BAD}), p.details(BAD, BAD), p.heading(BAD)]
    parts += [p.table([BAD, "n"], [[BAD, 1.5], [p.strong(BAD), None]], caption=BAD)]
    parts += [p.figures(p.figure(plot, BAD, title=BAD))]
    return p.page(BAD, [p.Section(BAD, parts), p.Section("Two", [])], intro=[BAD])


def test_no_text_becomes_markup_and_nothing_is_loaded():
    seen = Seen(example())
    assert "script" not in seen.tags and "link" not in seen.tags and "iframe" not in seen.tags
    for name, value in seen.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "href", "srcset") or value.startswith(("data:", "#"))
    assert "url(" not in STYLE and "@import" not in STYLE
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in seen.attributes


def test_a_page_is_well_formed_and_its_links_lead_to_its_sections():
    root = reading.parsed(example().partition("\n")[2])
    places = {node.get("id") for node in root.iter("h2")}
    assert len(places) == 2 and {a.get("href")[1:] for a in root.iter("a")} == places


def test_wide_things_scroll_or_shrink_and_both_colour_schemes_have_every_colour():
    root = reading.parsed(example().partition("\n")[2])
    (table,) = [div for div in root.iter("div") if div.find("table") is not None]
    assert table.get("class") == "wide" and table.get("tabindex") == "0"
    assert ("name", "viewport") in Seen(example()).attributes
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    names = {part.split(":")[0].strip() for part in light.partition("{")[2].split(";") if "--" in part}
    assert len(names) >= 16 and all(f"{name}:" in dark for name in names)


def test_cells_are_numbers_texts_or_dashes():
    text = p.table(["class", "AP", "n"], [["cat", 0.12345, 7], ["dog", None, math.nan]], caption="AP")
    cells = ["".join(td.itertext()) for td in reading.parsed(text).iter("td")]
    assert cells == ["0.123", "7", "–", "–"]
    assert [td.get("class") for td in reading.parsed(text).iter("td")] == ["n"] * 4


def test_a_picture_is_inside_the_page():
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "JPEG")
    node = reading.parsed(p.picture(file.getvalue(), alt=BAD, size=(8, 6)))
    assert node.get("src").startswith("data:image/jpeg;base64,/9j/") and node.get("alt") == BAD
    assert (node.get("width"), node.get("height")) == ("8", "6")


def test_markup_stays_and_what_xml_cannot_hold_is_replaced():
    assert escape(Html("<b>")) == "<b>" and escape("<b>") == "&lt;b&gt;" and escape(None) == ""
    assert escape("a\x00\x1b\ud800b") == "a\ufffd\ufffd\ufffdb"
    assert (
        element("g", "<", class_="a", fill_opacity=0.5, href=None)
        == '<g class="a" fill-opacity="0.5">&lt;</g>'
    )


def test_numbers_are_short_and_lose_no_size():
    values = [0, 0.5, 12.345, 123456, 9999, 2.5e6, 3e12, 0.00012, -0.25, 1500]
    wanted = ["0", "0.5", "12.3", "123k", "9999", "2.5M", "3e12", "1.2e-4", "-0.25", "1500"]
    assert [number(v) for v in values] == wanted
    assert [number(v) for v in (None, math.nan, -math.inf, 10**400, True)] == ["–"] * 5
    assert [number(v) for v in (np.float32(0.5), np.int64(7), np.float64("nan"))] == ["0.5", "7", "–"]
    assert [percent(v) for v in (0.1234, 1.0, None)] == ["12.3", "100.0", "–"]


def luminance(colour):
    """Of #rrggbb. Source: WCAG 2.2, relative luminance."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_texts_and_curves_stand_out_from_their_ground(place):
    """Source: WCAG 2.2, 1.4.3 and 1.4.11: 4.5 for texts, 3 for graphics."""
    half = STYLE.split("@media (prefers-color-scheme: dark)")[place]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", half))
    contrast = lambda a, b: (luminance(colours[a]) + 0.05) / (luminance(colours[b]) + 0.05)  # noqa: E731
    either = lambda a, b: max(contrast(a, b), contrast(b, a))  # noqa: E731
    for ground in ("ground", "raised"):
        assert min(either(name, ground) for name in ("text", "quiet", "accent")) >= 4.5
        assert min(either(f"c{k}", ground) for k in range(1, 9)) >= 3
    assert either("warn", "warn-ground") >= 4.5
