# SPDX-License-Identifier: Apache-2.0
"""Annotated boxes: x y width height -> clipped corners, with everything odd about them counted and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from detectron_libra.data.faults import DROP, ERROR, NOTE, Faults

#: Boxes may leave the image by rounding; more than this many pixels is told.
SLACK_PX = 1.0
#: Share of boxes leaving their image from which x1 y1 x2 y2 in the place of x y width height is likely.
SUSPICIOUS_SHARE = 0.2


def stated_area(annotation: Mapping[str, Any]) -> float:
    """Area of an object in square pixels: its ``area`` (of the mask, in COCO), or that of its box without one.

    Args:
        annotation: with a ``bbox`` of four numbers x y width height.
    """
    area = annotation.get("area")
    if isinstance(area, (int, float)) and not isinstance(area, bool):
        return area
    _, _, width, height = annotation["bbox"]
    return max(width, 0.0) * max(height, 0.0)


def look_at_boxes(xywh: np.ndarray, sizes: np.ndarray, faults: Faults) -> None:
    """Note what only the boxes together tell: fractions instead of pixels, corners instead of sizes.

    Args:
        xywh: (M, 4) float64; sizes: (M, 2) float64 height and width of each box's image, both in pixels.
        faults: where faults are noted.
    """
    finite = np.isfinite(xywh).all(axis=1)
    if not finite.any():
        return
    box, size = xywh[finite], sizes[finite]
    ends = box[:, :2] + box[:, 2:]
    if (ends <= 1 + 1e-6).all() and (box[:, 2:] > 0).any() and size.max() > 2:
        text = f"all {len(box)} boxes are under 1 pixel: fractions of the image? COCO's bbox is in pixels"
        faults.add(ERROR, text, "bbox")
    leaving = (ends > size[:, ::-1] + SLACK_PX).any(axis=1).mean()
    if leaving > SUSPICIOUS_SHARE:
        text = f"{leaving:.0%} of the boxes leave their image: x1 y1 x2 y2? COCO's bbox is x y width height"
        faults.add(NOTE, text, "bbox")


def clean_boxes(
    xywh: np.ndarray, sizes: np.ndarray, tell: Callable[[str, str, int, str], None], extent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Corners clipped to the image, and which boxes are usable.

    Args:
        xywh: (M, 4) float64 x y width height in pixels.
        sizes: (M, 2) float64 height and width of each box's image in pixels.
        tell: called for every dropped, clipped and faulty box with the level and the kind of the fault, the row
            of the box, and the numbers where they are the fault.
        extent: of the geometry, see geometry.Geometry.

    Returns:
        boxes (M, 4) float32 x1 y1 x2 y2, keep (M,) bool.

    Source: Detectron's utils/boxes.py (xywh_to_xyxy, clip_xyxy_to_image) and json_dataset.py (what is kept).
    """
    finite = np.isfinite(xywh).all(axis=1)
    for k in np.flatnonzero(~finite):
        shown = ", ".join(f"{v:g}" for v in xywh[k])
        tell(ERROR, "not finite; correct or remove it", int(k), f": bbox [{shown}]")
    xywh = np.where(
        finite[:, None], xywh, [0.0, 0.0, 2.0, 2.0]
    )  # told already: let it pass the rest unnoticed
    first, span = xywh[:, :2], xywh[:, 2:]
    limit = sizes[:, ::-1]  # width, height
    empty = (span <= 0).any(axis=1)
    outside = ((first >= limit) | (first + span <= 0)).any(axis=1) & ~empty
    corners = np.concatenate([first, first + np.maximum(span - extent, 0.0)], axis=1)
    most = np.concatenate([limit, limit], axis=1) - extent
    clipped = np.clip(corners, 0.0, most).astype(np.float32)
    flat = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1) & ~empty & ~outside
    over = ((first < -SLACK_PX) | (first + span > limit + SLACK_PX)).any(axis=1) & ~empty & ~outside & ~flat
    negative = (span < 0).any(axis=1)
    for mask, level, text in (
        (empty & ~negative, DROP, "zero width or height"),
        (negative, DROP, "negative width or height"),
        (outside, DROP, "outside the image"),
        (flat, DROP, "nothing left between the first and the last pixel"),
        (over, NOTE, "boxes partly outside the image, clipped to it"),
    ):
        for k in np.flatnonzero(mask):
            tell(level, text, int(k), "")
    return clipped, finite & ~empty & ~outside & ~flat
