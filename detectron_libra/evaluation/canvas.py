# SPDX-License-Identifier: Apache-2.0
"""Boxes and labels on a picture, so that they can be read on any background and beside each other."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

#: Told apart on light and dark photographs; the first eight also with red-green blindness (after Okabe and
#: Ito).
PALETTE: tuple[Colour, ...] = (
    (255, 176, 0),
    (64, 176, 255),
    (0, 200, 140),
    (240, 228, 66),
    (60, 110, 255),
    (235, 95, 0),
    (235, 120, 190),
    (170, 255, 60),
)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
CHIP = (30, 30, 30)
#: Turn of the hue from one class to the next beyond the palette: the golden ratio never comes back near
#: itself.
HUE_TURN = 0.618034


def colour_of(number: int) -> Colour:
    """The colour of class ``number``, 1..C-1."""
    k = int(number) - 1
    if k < len(PALETTE):
        return PALETTE[k]
    red, green, blue = colorsys.hsv_to_rgb(k * HUE_TURN % 1, 0.75, 1)
    return round(255 * red), round(255 * green), round(255 * blue)


class Canvas:
    """A picture that is drawn on; remembers where labels lie to keep them apart."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        self.pen = ImageDraw.Draw(picture)
        long_side = max(picture.size)
        self.line = 3 if long_side < 1200 else 4
        self.font = ImageFont.load_default(size=max(12, min(20, round(long_side / 62))))
        self.taken = np.zeros((0, 4))

    def box(self, box: Sequence[float], colour: Colour) -> None:
        """A solid frame, with a thin dark edge on both sides."""
        x1, y1, x2, y2 = _ordered(box)
        self.pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=CHIP, width=self.line + 2)
        self.pen.rectangle((x1, y1, x2, y2), outline=colour, width=self.line)

    def dashed_box(self, box: Sequence[float]) -> None:
        """A dashed white frame on a dark one."""
        x1, y1, x2, y2 = _ordered(box)
        corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1))
        for start, end in zip(corners[:-1], corners[1:], strict=True):
            self._dashes(start, end)

    def label(self, box: Sequence[float], text: str, colour: Colour | None) -> None:
        """A chip with ``text`` at the corner of the box where it hides least; None: white on dark."""
        left, top, right, bottom = self.pen.textbbox((0, 0), text, font=self.font)
        high = sum(self.font.getmetrics()) if hasattr(self.font, "getmetrics") else bottom - top
        width, height = right - left + 6, high + 2
        x, y = self._place(box, width, height)
        fill = CHIP if colour is None else colour
        self.pen.rectangle((x, y, x + width - 1, y + height - 1), fill=fill)
        self.pen.text((x + 3 - left, y + 1), text, font=self.font, fill=_ink(fill))
        self.taken = np.vstack([self.taken, [x, y, x + width, y + height]])

    def with_legend(self, solid: str, dashed: str) -> Image.Image:
        """The picture with a line below it: what the solid and the dashed frames are."""
        height = round(self.font.size * 1.9) if hasattr(self.font, "size") else 24
        whole = Image.new("RGB", (self.picture.width, self.picture.height + height), CHIP)
        whole.paste(self.picture)
        below = Canvas(whole)
        below.font, below.line = self.font, self.line
        middle, x = self.picture.height + height // 2, 10
        below.pen.line((x, middle, x + 28, middle), fill=PALETTE[0], width=self.line + 1)
        below.pen.text((x + 36, middle), solid, font=self.font, fill=WHITE, anchor="lm")
        x += 60 + round(below.pen.textlength(solid, font=self.font))
        below._dashes((x, middle), (x + 16 * self.line, middle))
        below.pen.text((x + 8 + 16 * self.line, middle), dashed, font=self.font, fill=WHITE, anchor="lm")
        return whole

    def _dashes(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        first, last = np.array(start, float), np.array(end, float)
        length = float(np.abs(last - first).max())
        dash = 3.0 * self.line
        for begin in np.arange(0, length, 2.2 * dash):
            ends = [first + (last - first) * min(at, length) / length for at in (begin, begin + dash)]
            points = [tuple(point) for point in ends]
            self.pen.line(points, fill=BLACK, width=self.line + 1)
            self.pen.line(points, fill=WHITE, width=self.line - 1)

    def _place(self, box: Sequence[float], width: float, height: float) -> tuple[float, float]:
        x1, y1, x2, y2 = _ordered(box)
        corners = np.array(
            [
                (x1, y1 - height),
                (x2 - width + 1, y1 - height),
                (x1, y1),
                (x1, y2 + 1),
                (x2 - width + 1, y2 + 1),
                (x1, y2 - height + 1),
            ]
        )
        room = np.array(self.picture.size) - (width, height)
        corners = np.clip(corners, 0, np.maximum(room, 0)).round()
        chips = np.concatenate([corners, corners + (width, height)], axis=1)
        common = np.minimum(chips[:, None, 2:], self.taken[None, :, 2:])
        common = np.clip(common - np.maximum(chips[:, None, :2], self.taken[None, :, :2]), 0, None)
        x, y = corners[int(np.argmin(common.prod(axis=2).sum(axis=1)))]
        return float(x), float(y)


def _ordered(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Corners as Pillow wants them, whatever the boxes of an untrained detector are."""
    x1, y1, x2, y2 = (float(value) for value in np.nan_to_num(box))
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _ink(fill: Colour) -> Colour:
    """Black on light colours, white on dark ones."""
    red, green, blue = fill
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else WHITE
