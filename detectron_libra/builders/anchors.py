# SPDX-License-Identifier: Apache-2.0
"""Configuration to anchors."""

from detectron_libra.builders.backbone import Features
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
    return AnchorGrid(bases, strides, fit=geometry_of(cfg).whole_anchors)


def rpn_anchors(cfg: Config, features: Features) -> AnchorGrid:
    """The region proposal network's anchors.

    On a pyramid one size per level, doubled from level to level; on a single level all of RPN.SIZES.

    Raises:
        UsageError: keys that do not fit the features.
    """
    geometry = geometry_of(cfg)
    if cfg.FPN.FPN_ON:
        anchor_levels(cfg)
        start, ratios = cfg.FPN.RPN_ANCHOR_START_SIZE, cfg.FPN.RPN_ASPECT_RATIOS
        sizes = [[start * 2 ** (level - cfg.FPN.RPN_MIN_LEVEL)] for level in features.levels]
    else:
        if features.strides[0] != cfg.RPN.STRIDE:
            raise UsageError(
                f"RPN.STRIDE: {cfg.RPN.STRIDE} is not the stride of MODEL.CONV_BODY {cfg.MODEL.CONV_BODY}; "
                f"set it to {features.strides[0]}"
            )
        ratios, sizes = cfg.RPN.ASPECT_RATIOS, [list(cfg.RPN.SIZES)]
    pairs = zip(features.strides, sizes, strict=True)
    bases = [base_anchors(stride, level_sizes, ratios, geometry=geometry) for stride, level_sizes in pairs]
    return AnchorGrid(bases, features.strides, fit=geometry.whole_anchors)
