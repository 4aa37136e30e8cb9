# SPDX-License-Identifier: Apache-2.0
"""Configuration to anchors."""

from detectron_libra.config.schema import Config
from detectron_libra.geometry import GEOMETRIES
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors, octave_anchors


def retinanet_anchors(cfg: Config, levels: tuple[int, int]) -> AnchorGrid:
    """RetinaNet's anchors on the levels from the first to the last of ``levels``."""
    r = cfg.RETINANET
    strides = [2**level for level in range(levels[0], levels[1] + 1)]
    bases = [
        octave_anchors(
            stride,
            r.ASPECT_RATIOS,
            scales_per_octave=r.SCALES_PER_OCTAVE,
            anchor_scale=r.ANCHOR_SCALE,
            geometry=GEOMETRIES[cfg.MODEL.BOX_GEOMETRY],
        )
        for stride in strides
    ]
    return AnchorGrid(bases, strides)


def rpn_anchors(cfg: Config, levels: tuple[int, int]) -> AnchorGrid:
    """The region proposal network's anchors: one size per level, doubled from level to level."""
    geometry = GEOMETRIES[cfg.MODEL.BOX_GEOMETRY]
    bases, strides = [], []
    for level in range(levels[0], levels[1] + 1):
        size = cfg.FPN.RPN_ANCHOR_START_SIZE * 2 ** (level - cfg.FPN.RPN_MIN_LEVEL)
        bases.append(base_anchors(2**level, [size], cfg.FPN.RPN_ASPECT_RATIOS, geometry=geometry))
        strides.append(2**level)
    return AnchorGrid(bases, strides)
