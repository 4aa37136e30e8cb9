# SPDX-License-Identifier: Apache-2.0
"""Configuration to the second stage of an R-CNN."""

import re

from torch import Tensor, nn

from detectron_libra.builders.backbone import Features, build_res5_head
from detectron_libra.builders.imbalance import (
    final_box_loss,
    negative_sampler,
    positive_sampler,
    region_class_loss,
)
from detectron_libra.builders.rules import detection_rule, norm_groups
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError
from detectron_libra.modeling.detectors.regions import Pooling, RegionHead
from detectron_libra.modeling.heads.fast_rcnn import FastRCNNPredictor, TwoMLPHead, XConvFCHead
from detectron_libra.modeling.sampling import RoISampling

FAST_RCNN_SMOOTH_L1_BETA = 1.0  # the default of Caffe2's SmoothL1Loss
#: Detectron's name, and those of the years when every depth had one of its own.
RES5_HEAD = re.compile(r"ResNet\.add_ResNet(\d+)?_roi_conv5_head")


def box_head(cfg: Config, channels: int) -> nn.Module:
    """The head that FAST_RCNN.ROI_BOX_HEAD names, on features of so many channels."""
    f = cfg.FAST_RCNN
    size = {"channels": channels, "resolution": f.ROI_XFORM_RESOLUTION, "dim": f.MLP_HEAD_DIM}
    convs = {"conv_dim": f.CONV_HEAD_DIM, "num_convs": f.NUM_STACKED_CONVS}
    heads = {
        "add_roi_2mlp_head": lambda: TwoMLPHead(**size),
        "add_roi_Xconv1fc_head": lambda: XConvFCHead(**size, **convs, norm="none"),
        "add_roi_Xconv1fc_gn_head": lambda: XConvFCHead(
            **size, **convs, norm="group", norm_groups=norm_groups(cfg), norm_eps=cfg.GROUP_NORM.EPSILON
        ),
    }
    module, _, name = f.ROI_BOX_HEAD.rpartition(".")
    if RES5_HEAD.fullmatch(f.ROI_BOX_HEAD):
        return build_res5_head(cfg, f.ROI_XFORM_RESOLUTION)
    if name not in heads or module not in ("fast_rcnn_heads", "head_builder"):
        known = ", ".join([*(f"fast_rcnn_heads.{n}" for n in heads), "ResNet.add_ResNet_roi_conv5_head"])
        raise UsageError(f"FAST_RCNN.ROI_BOX_HEAD: {f.ROI_BOX_HEAD!r} is not available; known: {known}")
    return heads[name]()


def pooling(cfg: Config, features: Features) -> Pooling:
    """How regions are cut out of the features."""
    f = cfg.FPN
    if f.FPN_ON and not f.MULTILEVEL_ROIS:
        raise UsageError(
            "FPN.MULTILEVEL_ROIS: a head on one level of a pyramid is not available; set it to True"
        )
    if f.FPN_ON and features.levels[0] != f.ROI_MIN_LEVEL:
        raise UsageError(
            f"FPN.ROI_MIN_LEVEL: {f.ROI_MIN_LEVEL} has to be the pyramid's finest level, {features.levels[0]} "
            "(FPN.RPN_MIN_LEVEL)"
        )
    levels = f.ROI_MAX_LEVEL - f.ROI_MIN_LEVEL + 1 if f.FPN_ON else 1
    return Pooling(
        levels=levels,
        min_level=features.levels[0],
        strides=features.strides[:levels],
        resolution=cfg.FAST_RCNN.ROI_XFORM_RESOLUTION,
        sampling_ratio=cfg.FAST_RCNN.ROI_XFORM_SAMPLING_RATIO,
        canonical_scale=f.ROI_CANONICAL_SCALE,
        canonical_level=f.ROI_CANONICAL_LEVEL,
    )


def region_head(
    cfg: Config,
    num_classes: int,
    features: Features,
    crowd_threshold: float | None,
    class_counts: Tensor | None = None,
) -> RegionHead:
    """The second stage.

    Args:
        num_classes: with background.
        features: what regions are cut out of.
        crowd_threshold: share of a proposal inside a crowd from which it is no background; None: crowds are.
        class_counts: as in ``build_detector``.
    """
    if cfg.FAST_RCNN.ROI_XFORM_METHOD != "RoIAlign":
        raise UsageError(
            f"FAST_RCNN.ROI_XFORM_METHOD: {cfg.FAST_RCNN.ROI_XFORM_METHOD} is not available; set it to RoIAlign"
        )
    t = cfg.TRAIN
    head = box_head(cfg, features.channels)
    sampling = RoISampling(
        batch_size=t.BATCH_SIZE_PER_IM,
        fg_fraction=t.FG_FRACTION,
        fg_thresh=t.FG_THRESH,
        bg_hi=t.BG_THRESH_HI,
        bg_lo=t.BG_THRESH_LO,
        negatives=negative_sampler(cfg),
        positives=positive_sampler(cfg),
    )
    return RegionHead(
        head=head,
        predictor=FastRCNNPredictor(
            dim=head.out_dim,  # type: ignore[arg-type]
            num_classes=num_classes,
            class_agnostic=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
        ),
        pooling=pooling(cfg, features),
        sampling=sampling,
        box_weights=cfg.MODEL.BBOX_REG_WEIGHTS,
        box_loss=final_box_loss(cfg, FAST_RCNN_SMOOTH_L1_BETA),
        class_loss=region_class_loss(cfg, num_classes - 1, class_counts),
        detection=detection_rule(cfg, cfg.TEST.SCORE_THRESH),
        box_threshold=t.BBOX_THRESH,
        crowd_threshold=crowd_threshold,
    )
