# SPDX-License-Identifier: Apache-2.0
"""Configuration to detector."""

import math

from torch import nn

from detectron_libra.builders.anchors import anchor_levels, retinanet_anchors, rpn_anchors
from detectron_libra.builders.backbone import build_trunk
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError
from detectron_libra.geometry import GEOMETRIES, Geometry
from detectron_libra.modeling.detectors.rcnn import FasterRCNN, Pooling, RegionHead
from detectron_libra.modeling.detectors.retinanet import RetinaNet
from detectron_libra.modeling.heads.fast_rcnn import FastRCNNPredictor, TwoMLPHead, XConvFCHead
from detectron_libra.modeling.heads.retinanet import RetinaNetHead
from detectron_libra.modeling.heads.rpn import RPNHead
from detectron_libra.modeling.losses import BalancedL1Loss, SmoothL1Loss
from detectron_libra.modeling.postprocess import DetectionRule
from detectron_libra.modeling.proposals import ProposalRule
from detectron_libra.modeling.retinanet_loss import NegativeChoice, RetinaNetRule
from detectron_libra.modeling.rpn_loss import RPNRule
from detectron_libra.modeling.sampling import InstanceSampling, IoUSampling, RoISampling

RPN_SMOOTH_L1_BETA = 1 / 9  # Detectron's rpn_heads.py
FAST_RCNN_SMOOTH_L1_BETA = 1.0  # the default of Caffe2's SmoothL1Loss
EVERY_BOX = 1 << 30  # a limit that limits nothing: the meaning of 0 in Detectron's keys


def geometry_of(cfg: Config) -> Geometry:
    """The box convention."""
    return GEOMETRIES[cfg.MODEL.BOX_GEOMETRY]


def box_loss(cfg: Config, smooth_l1_beta: float) -> nn.Module:
    """The loss of the detector's final boxes: balanced L1 where it is on."""
    b = cfg.LIBRA.BALANCED_L1
    if b.ON:
        return BalancedL1Loss(alpha=b.ALPHA, gamma=b.GAMMA, beta=b.BETA, form=b.FORM)
    return SmoothL1Loss(beta=smooth_l1_beta)


def iou_sampling(cfg: Config) -> IoUSampling | None:
    """IoU-balanced choice of negatives, where it is on."""
    s = cfg.LIBRA.IOU_SAMPLING
    if not s.ON:
        return None
    return IoUSampling(bins=s.BINS, floor=s.FLOOR, floor_fraction=s.FLOOR_FRACTION, form=s.FORM)


def detection_rule(cfg: Config, score_threshold: float) -> DetectionRule:
    """What is reported of an image."""
    return DetectionRule(
        score_threshold=score_threshold,
        nms_threshold=cfg.TEST.NMS,
        detections_per_image=cfg.TEST.DETECTIONS_PER_IM or EVERY_BOX,
        geometry=geometry_of(cfg),
        box_clip=cfg.BBOX_XFORM_CLIP,
    )


def build_retinanet(cfg: Config, num_classes: int) -> RetinaNet:
    """RetinaNet for ``num_classes`` classes, background included."""
    r = cfg.RETINANET
    if r.CLASS_SPECIFIC_BBOX:
        raise UsageError(
            "RETINANET.CLASS_SPECIFIC_BBOX: Detectron cannot test it, nor can we; set it to False"
        )
    trunk = build_trunk(cfg)
    head = RetinaNetHead(
        channels_in=cfg.FPN.DIM,
        channels=r.HEAD_DIM or cfg.FPN.DIM,
        num_convs=r.NUM_CONVS,
        num_anchors=len(r.ASPECT_RATIOS) * r.SCALES_PER_OCTAVE,
        num_classes=num_classes - 1,
        prior=r.PRIOR_PROB,
        norm=r.HEAD_NORM,
        share_towers=r.SHARE_CLS_BBOX_TOWER,
        softmax=r.SOFTMAX,
    )
    sampling = iou_sampling(cfg)
    rule = RetinaNetRule(
        positive=r.POSITIVE_OVERLAP,
        negative=r.NEGATIVE_OVERLAP,
        alpha=r.LOSS_ALPHA,
        gamma=r.LOSS_GAMMA,
        num_classes=num_classes - 1,
        softmax=r.SOFTMAX,
        geometry=geometry_of(cfg),
        assignment=cfg.MODEL.BOX_GEOMETRY,
        crowd_threshold=crowd_threshold(cfg),
        negatives=NegativeChoice(cfg.LIBRA.IOU_SAMPLING.NEGATIVES_PER_IM, sampling) if sampling else None,
    )
    return RetinaNet(
        **trunk,  # type: ignore[arg-type]
        head=head,
        anchors=retinanet_anchors(cfg, anchor_levels(cfg)),
        rule=rule,
        box_loss=box_loss(cfg, r.BBOX_REG_BETA),
        pre_nms_top_n=r.PRE_NMS_TOP_N,
        detection=detection_rule(cfg, r.INFERENCE_TH),
    )


def crowd_threshold(cfg: Config) -> float | None:
    """Anchors mostly inside a crowd are ignored; Detectron trains them as background, and so does its geometry."""
    return 0.5 if cfg.MODEL.BOX_GEOMETRY == "continuous" else None


def proposal_rule(cfg: Config, *, training: bool) -> ProposalRule:
    """How many proposals go on."""
    keys = cfg.TRAIN if training else cfg.TEST
    return ProposalRule(
        pre_nms_top_n=keys.RPN_PRE_NMS_TOP_N or EVERY_BOX,
        post_nms_top_n=keys.RPN_POST_NMS_TOP_N or EVERY_BOX,
        nms_threshold=keys.RPN_NMS_THRESH,
        min_size=keys.RPN_MIN_SIZE,
        per_batch=training,
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
        "add_roi_Xconv1fc_gn_head": lambda: XConvFCHead(**size, **convs, norm="group"),
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


def loss_weights(cfg: Config) -> dict[str, float]:
    """Factor of each part of the loss; where Detectron has one of its own for the same part, the two multiply."""
    w = cfg.LOSS.WEIGHTS
    if cfg.RETINANET.RETINANET_ON:
        return {"cls": w.CLS, "bbox": w.BBOX * cfg.RETINANET.BBOX_REG_WEIGHT}
    return {"cls": w.CLS, "bbox": w.BBOX, "rpn_cls": w.RPN_CLS, "rpn_bbox": w.RPN_BBOX}


def refuse_what_is_missing(cfg: Config) -> None:
    """Keys that parse but have no effect yet: an error where they ask for something.

    Raises:
        UsageError: naming the key.
    """
    asked = {
        "TEST.SOFT_NMS.ENABLED": cfg.TEST.SOFT_NMS.ENABLED,
        "TEST.BBOX_VOTE.ENABLED": cfg.TEST.BBOX_VOTE.ENABLED,
        "TEST.BBOX_AUG.ENABLED": cfg.TEST.BBOX_AUG.ENABLED,
        "MODEL.RPN_ONLY": cfg.MODEL.RPN_ONLY,
        "TEST.BBOX_REG False": not cfg.TEST.BBOX_REG,
    }
    missing = [name for name, on in asked.items() if on]
    if missing:
        raise UsageError(f"{', '.join(missing)}: not available yet; remove it")
    if not cfg.FPN.FPN_ON:
        raise UsageError("FPN.FPN_ON: models without a feature pyramid are not available yet; set it to True")
    if not math.isfinite(cfg.SOLVER.BASE_LR):
        raise UsageError(f"SOLVER.BASE_LR: {cfg.SOLVER.BASE_LR} is not a finite number")


def build_detector(cfg: Config, num_classes: int) -> nn.Module:
    """The detector that the configuration describes, with random weights.

    Args:
        num_classes: classes with background.

    Raises:
        UsageError: a key asks for what there is not.
    """
    refuse_what_is_missing(cfg)
    if cfg.RETINANET.RETINANET_ON:
        return build_retinanet(cfg, num_classes)
    if cfg.MODEL.FASTER_RCNN:
        return build_faster_rcnn(cfg, num_classes)
    raise UsageError(
        "MODEL: no detector is switched on; set RETINANET.RETINANET_ON or MODEL.FASTER_RCNN to True"
    )
