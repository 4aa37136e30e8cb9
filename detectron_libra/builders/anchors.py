# SPDX-License-Identifier: Apache-2.0
"""Configuration to anchors."""

from detectron_libra.builders.rules import geometry_of
from detectron_libra.config.checks import pyramid_levels
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError
from detectron_libra.modeling.anchors import AnchorGrid, base_anchors, octave_anchors


def anchor_levels(cfg: Config) -> tuple[int, int]:
    """First and last level with anchors, which are those of the pyramid.

    Raises:
        UsageError: the pyramid has others.
    """
    f, levels = cfg.FPN, pyramid_levels(cfg)
    if not f.MULTILEVEL_RPN:
        raise UsageError("FPN.MULTILEVEL_RPN: anchors on one level are not available yet; set it to True")
    if levels != (f.RPN_MIN_LEVEL, f.RPN_MAX_LEVEL):
        raise UsageError(
            f"FPN.RPN_MIN_LEVEL, FPN.RPN_MAX_LEVEL: {f.RPN_MIN_LEVEL}..{f.RPN_MAX_LEVEL} are not the levels of "
            f"the pyramid; set them to {levels[0]} and {levels[1]}"
        )
    return levels


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
            geometry=geometry_of(cfg),
        )
        for stride in strides
    ]
    return AnchorGrid(bases, strides)


def rpn_anchors(cfg: Config, levels: tuple[int, int]) -> AnchorGrid:
    """The region proposal network's anchors: one size per level, doubled from level to level."""
    geometry = geometry_of(cfg)
    bases, strides = [], []
    for level in range(levels[0], levels[1] + 1):
        size = cfg.FPN.RPN_ANCHOR_START_SIZE * 2 ** (level - cfg.FPN.RPN_MIN_LEVEL)
        bases.append(base_anchors(2**level, [size], cfg.FPN.RPN_ASPECT_RATIOS, geometry=geometry))
        strides.append(2**level)
    return AnchorGrid(bases, strides)
