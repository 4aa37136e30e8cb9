# SPDX-License-Identifier: Apache-2.0
"""A page is one file: well-formed, escaped, without a script or an address, for every width and for light and dark."""

import io
import math
from html.parser import HTMLParser

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
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")[:2]
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
    assert [number(v) for v in (None, math.nan, math.inf)] == ["–"] * 3
    assert [percent(v) for v in (0.1234, 1.0, None)] == ["12.3", "100.0", "–"]
