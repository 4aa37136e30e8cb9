# SPDX-License-Identifier: Apache-2.0
"""The configuration keys that weights of Detectron need: what does not show in the shapes of their arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from detectron_libra.weights.cfg_text import lookup

#: What every network of Detectron is fed with. Source: core/config.py; there is no division by deviations.
PREPROCESSING: dict[str, Any] = {
    "PIXEL_ORDER": "BGR",
    "PIXEL_MEANS": [[[102.9801, 115.9465, 122.7717]]],
    "PIXEL_STDS": [[[1.0, 1.0, 1.0]]],
}
FUNCTIONS = {
    "RESNETS.TRANS_FUNC": "bottleneck_gn_transformation",
    "RESNETS.STEM_FUNC": "basic_gn_stem",
    "RESNETS.SHORTCUT_FUNC": "basic_gn_shortcut",
}
#: Taken from the file's configuration, each group where the file has layers that it is about.
BACKBONE = ("PIXEL_MEANS", "RESNETS.STRIDE_1X1", "RESNETS.RES5_DILATION", *FUNCTIONS)
GROUPS = ("GROUP_NORM.DIM_PER_GP", "GROUP_NORM.NUM_GROUPS", "GROUP_NORM.EPSILON")
PYRAMID_RPN = ("FPN.RPN_ASPECT_RATIOS", "FPN.RPN_ANCHOR_START_SIZE")
SINGLE_RPN = ("RPN.SIZES", "RPN.STRIDE", "RPN.ASPECT_RATIOS")
REGIONS = (
    "MODEL.BBOX_REG_WEIGHTS",
    "FAST_RCNN.ROI_XFORM_METHOD",
    "FAST_RCNN.ROI_XFORM_RESOLUTION",
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO",
    "FPN.ROI_CANONICAL_SCALE",
    "FPN.ROI_CANONICAL_LEVEL",
)
RETINANET = (
    "RETINANET.ASPECT_RATIOS",
    "RETINANET.SCALES_PER_OCTAVE",
    "RETINANET.ANCHOR_SCALE",
    "RETINANET.SOFTMAX",
)
BEFORE_BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def settings_of(
    names: Iterable[str], blobs: Iterable[str], cfg: Mapping[str, Any] | None, *, backbone_only: bool
) -> dict[str, Any]:
    """Keys and values that a file's weights need.

    Args:
        names: of our model, that the file fills.
        blobs: that fill them.
        cfg: the file's configuration, None where it has none.
        backbone_only: weights of ImageNet, which need no geometry of boxes.

    Returns:
        Key -> plain value. Where the configuration lacks a key, it is not here either, but for the box weights: files
        from before that key were made with factors of 1.

    Source: Detectron's utils/net.py, configure_bbox_reg_weights.
    """
    names = tuple(names)
    groups = any(blob.endswith("_gn_s") for blob in blobs)
    settings = dict(PREPROCESSING)
    if not backbone_only:
        settings |= {"MODEL.BOX_GEOMETRY": "detectron"}
    if any(blob in ("conv1_gn_s", "res2_0_branch2a_gn_s") for blob in blobs):
        settings |= FUNCTIONS
    if cfg is None:
        return settings
    regions = _has(names, "regions.")
    wanted = [
        *BACKBONE,
        *(GROUPS if groups else ()),
        *((PYRAMID_RPN if _has(names, "neck.") else SINGLE_RPN) if _has(names, "rpn.") else ()),
        *(REGIONS if regions else ()),
        *(RETINANET if _has(names, "head.") else ()),
        *(("BBOX_XFORM_CLIP",) if not backbone_only else ()),
    ]
    settings |= {key: value for key in wanted if (value := lookup(cfg, key)) is not None}
    if regions:
        settings.setdefault("MODEL.BBOX_REG_WEIGHTS", BEFORE_BOX_WEIGHTS)
    return settings


def _has(names: Iterable[str], part: str) -> bool:
    return any(name.startswith(part) for name in names)
