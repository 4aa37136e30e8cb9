# SPDX-License-Identifier: Apache-2.0
"""Plots and pages read back as a program sees them."""

import math
import re
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def parsed(svg):
    """The root element; raises where the markup is not well-formed."""
    return ElementTree.fromstring(svg)


def words(page):
    """What a page says, its plots included; raises where it is not well-formed."""
    body = parsed(page.partition("\n")[2]).find("body")
    return " ".join(" ".join(body.itertext()).split())


def texts(svg):
    """What is written in the plot."""
    return ["".join(node.itertext()) for node in parsed(svg).iter(f"{SVG}text")]


def curves(svg, group):
    """Points of every line of the groups of a class: [[(x, y), …], …], in pixels."""
    found = []
    for node in parsed(svg).iter(f"{SVG}g"):
        if group in node.get("class", "").split():
            for path in node.findall(f"{SVG}path"):
                found += [_points(part) for part in path.get("d").split("M") if part]
    return found


def dots(svg):
    return [(float(n.get("cx")), float(n.get("cy"))) for n in parsed(svg).iter(f"{SVG}circle")]


def bars(svg):
    """x, y, width, height of every rectangle."""
    keys = ("x", "y", "width", "height")
    return [tuple(float(n.get(k)) for k in keys) for n in parsed(svg).iter(f"{SVG}rect")]


def is_inside(svg):
    """No coordinate is infinite, NaN, or outside of the picture."""
    root = parsed(svg)
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    xs, ys = [], []
    for node in root.iter():
        if node.tag == f"{SVG}path":
            numbers = [float(v) for v in NUMBERS.findall(node.get("d"))]
            assert all(map(math.isfinite, numbers)) and max(numbers, default=0) <= max(width, height)
            assert "nan" not in node.get("d") and "inf" not in node.get("d")
        xs += [float(node.get(k)) for k in ("x", "cx") if node.get(k)]
        ys += [float(node.get(k)) for k in ("y", "cy") if node.get(k)]
    return all(0 <= x <= width for x in xs) and all(0 <= y <= height for y in ys)


def _points(path):
    numbers = [float(v) for v in NUMBERS.findall(path)]
    return list(zip(numbers[::2], numbers[1::2], strict=False))
