# SPDX-License-Identifier: Apache-2.0
"""Configuration to Faster R-CNN."""

from torch import nn

from detectron_libra.builders.anchors import anchor_levels, rpn_anchors
from detectron_libra.builders.backbone import build_trunk
from detectron_libra.builders.rules import (
    EVERY_BOX,
    box_loss,
    crowd_threshold,
    detection_rule,
    geometry_of,
    iou_sampling,
)
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError
from detectron_libra.modeling.detectors.rcnn import FasterRCNN, Pooling, RegionHead
from detectron_libra.modeling.heads.fast_rcnn import FastRCNNPredictor, TwoMLPHead, XConvFCHead
from detectron_libra.modeling.heads.rpn import RPNHead
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.proposals import ProposalRule
from detectron_libra.modeling.rpn_loss import RPNRule
from detectron_libra.modeling.sampling import InstanceSampling, RoISampling

RPN_SMOOTH_L1_BETA = 1 / 9  # Detectron's rpn_heads.py
FAST_RCNN_SMOOTH_L1_BETA = 1.0  # the default of Caffe2's SmoothL1Loss


def proposal_rule(cfg: Config, *, training: bool) -> ProposalRule:
    """How many proposals go on."""
    keys = cfg.TRAIN if training else cfg.TEST
    return ProposalRule(
        pre_nms_top_n=keys.RPN_PRE_NMS_TOP_N or EVERY_BOX,
        post_nms_top_n=keys.RPN_POST_NMS_TOP_N or EVERY_BOX,
        nms_threshold=keys.RPN_NMS_THRESH,
        min_size=keys.RPN_MIN_SIZE,
        # per image elsewhere: mmdetection, and what is meant where a batch is larger than Detectron's two
        per_batch=training and cfg.MODEL.BOX_GEOMETRY == "detectron",
        geometry=geometry_of(cfg),
        box_clip=cfg.BBOX_XFORM_CLIP,
    )


def box_head(cfg: Config) -> nn.Module:
    """The head that FAST_RCNN.ROI_BOX_HEAD names."""
    f = cfg.FAST_RCNN
    size = {"channels": cfg.FPN.DIM, "resolution": f.ROI_XFORM_RESOLUTION, "dim": f.MLP_HEAD_DIM}
    convs = {"conv_dim": f.CONV_HEAD_DIM, "num_convs": f.NUM_STACKED_CONVS}
    heads = {
        "add_roi_2mlp_head": lambda: TwoMLPHead(**size),
        "add_roi_Xconv1fc_head": lambda: XConvFCHead(**size, **convs, norm="none"),
        "add_roi_Xconv1fc_gn_head": lambda: XConvFCHead(
            **size, **convs, norm="group", groups=cfg.GROUP_NORM.NUM_GROUPS
        ),
    }
    module, _, name = f.ROI_BOX_HEAD.rpartition(".")
    if name not in heads or module not in ("fast_rcnn_heads", "head_builder"):
        known = ", ".join(f"fast_rcnn_heads.{n}" for n in heads)
        raise UsageError(f"FAST_RCNN.ROI_BOX_HEAD: {f.ROI_BOX_HEAD!r} is not available; known: {known}")
    return heads[name]()


def pooling(cfg: Config, min_level: int) -> Pooling:
    """How regions are cut out of a pyramid that starts at ``min_level``."""
    f = cfg.FPN
    if not f.MULTILEVEL_ROIS:
        raise UsageError("FPN.MULTILEVEL_ROIS: a head on one level is not available yet; set it to True")
    if min_level != f.ROI_MIN_LEVEL:
        raise UsageError(
            f"FPN.ROI_MIN_LEVEL: {f.ROI_MIN_LEVEL} has to be the pyramid's finest level, {min_level} "
            "(FPN.RPN_MIN_LEVEL)"
        )
    levels = f.ROI_MAX_LEVEL - f.ROI_MIN_LEVEL + 1
    return Pooling(
        levels=levels,
        min_level=f.ROI_MIN_LEVEL,
        strides=tuple(2 ** (f.ROI_MIN_LEVEL + i) for i in range(levels)),
        resolution=cfg.FAST_RCNN.ROI_XFORM_RESOLUTION,
        sampling_ratio=cfg.FAST_RCNN.ROI_XFORM_SAMPLING_RATIO,
        canonical_scale=f.ROI_CANONICAL_SCALE,
        canonical_level=f.ROI_CANONICAL_LEVEL,
    )


def region_head(cfg: Config, num_classes: int, min_level: int) -> RegionHead:
    """The second stage."""
    if cfg.FAST_RCNN.ROI_XFORM_METHOD != "RoIAlign":
        raise UsageError(
            f"FAST_RCNN.ROI_XFORM_METHOD: {cfg.FAST_RCNN.ROI_XFORM_METHOD} is not available; set it to RoIAlign"
        )
    t = cfg.TRAIN
    head = box_head(cfg)
    instance = cfg.LIBRA.INSTANCE_SAMPLING
    sampling = RoISampling(
        batch_size=t.BATCH_SIZE_PER_IM,
        fg_fraction=t.FG_FRACTION,
        fg_thresh=t.FG_THRESH,
        bg_hi=t.BG_THRESH_HI,
        bg_lo=t.BG_THRESH_LO,
        iou=iou_sampling(cfg),
        instance=InstanceSampling(form=instance.FORM) if instance.ON else None,
    )
    return RegionHead(
        head=head,
        predictor=FastRCNNPredictor(
            dim=head.out_dim,  # type: ignore[arg-type]
            num_classes=num_classes,
            class_agnostic=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
        ),
        pooling=pooling(cfg, min_level),
        sampling=sampling,
        box_weights=cfg.MODEL.BBOX_REG_WEIGHTS,
        box_loss=box_loss(cfg, FAST_RCNN_SMOOTH_L1_BETA),
        detection=detection_rule(cfg, cfg.TEST.SCORE_THRESH),
        crowd_threshold=crowd_threshold(cfg),
    )


def build_faster_rcnn(cfg: Config, num_classes: int) -> FasterRCNN:
    """Faster R-CNN for ``num_classes`` classes, background included."""
    t = cfg.TRAIN
    levels = anchor_levels(cfg)
    trunk = build_trunk(cfg)
    rule = RPNRule(
        positive=t.RPN_POSITIVE_OVERLAP,
        negative=t.RPN_NEGATIVE_OVERLAP,
        straddle=t.RPN_STRADDLE_THRESH,
        batch_size=t.RPN_BATCH_SIZE_PER_IM,
        fg_fraction=t.RPN_FG_FRACTION,
        geometry=geometry_of(cfg),
        assignment=cfg.MODEL.BOX_GEOMETRY,
        min_positive=t.RPN_NEGATIVE_OVERLAP if cfg.MODEL.BOX_GEOMETRY == "continuous" else 0.0,
        crowd_threshold=crowd_threshold(cfg),
    )
    return FasterRCNN(
        **trunk,  # type: ignore[arg-type]
        rpn=RPNHead(channels=cfg.FPN.DIM, num_anchors=len(cfg.FPN.RPN_ASPECT_RATIOS)),
        anchors=rpn_anchors(cfg, levels),
        rpn_rule=rule,
        rpn_box_loss=SmoothL1Loss(beta=RPN_SMOOTH_L1_BETA),
        train_proposals=proposal_rule(cfg, training=True),
        test_proposals=proposal_rule(cfg, training=False),
        regions=region_head(cfg, num_classes, levels[0]),
    )
