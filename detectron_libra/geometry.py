# SPDX-License-Identifier: Apache-2.0
"""The conventions for box coordinates; everything that differs between them is a field here.

Code that needs a convention takes the field it needs (``geometry.extent``), and never asks which one it is.
Source: Detectron's utils/boxes.py and modeling/generate_anchors.py; mmdetection >= 2 and detectron2 for ``continuous``;
torchvision's models/detection for its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def flip_boxes(boxes: Tensor, size: tuple[int, int], *, extent: float, flip_x: bool, flip_y: bool) -> Tensor:
    """Boxes of the mirrored image.

    Args:
        boxes: (G, 4) float32 x1 y1 x2 y2 in pixels of the image.
        size: (height, width) of the image in pixels.
        extent: of the geometry: corners that name pixels mirror at W - 1, edges at W.
        flip_x, flip_y: which axes are mirrored.

    Returns:
        (G, 4) float32.

    Source: Detectron's utils/boxes.py (flip_boxes).
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    height, width = size
    if flip_x:
        x1, x2 = width - x2 - extent, width - x1 - extent
    if flip_y:
        y1, y2 = height - y2 - extent, height - y1 - extent
    return torch.stack([x1, y1, x2, y2], dim=1)


@dataclass(frozen=True)
class Geometry:
    """How box corners are to be read."""

    name: str
    #: Pixels added to ``x2 - x1`` to get a width: 1 where corners name the first and the last pixel.
    extent: float
    #: Base anchors have rounded sides and are centred at (stride - 1) / 2; otherwise exact, centred at 0.
    round_anchors: bool
    #: RoIAlign shifts boxes by half a pixel before sampling.
    aligned_roi: bool
    #: NMS drops a box whose IoU with a kept one is equal to the threshold, not only above it.
    nms_inclusive: bool
    #: Decoding bounds log width and height from below too, not only from above.
    clip_shrinking: bool
    #: Images are resized in float32 and stay unrounded.
    resize_in_float: bool
    #: Anchors have whole sizes and corners, and cells lie (image side // cells) apart instead of a stride.
    whole_anchors: bool = False
    #: A RetinaNet's coarsest level has no score threshold.
    keep_coarsest: bool = False
    #: Whose rules of matching and sampling belong to it: ``detectron`` or ``continuous``.
    rules: str = "continuous"


DETECTRON = Geometry("detectron", 1.0, True, False, True, False, True, keep_coarsest=True, rules="detectron")
CONTINUOUS = Geometry("continuous", 0.0, False, True, False, True, False)
TORCHVISION = Geometry("torchvision", 0.0, False, False, False, False, True, whole_anchors=True)
GEOMETRIES = {g.name: g for g in (DETECTRON, CONTINUOUS, TORCHVISION)}
