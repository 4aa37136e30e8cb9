# SPDX-License-Identifier: Apache-2.0
"""What both detectors read from the configuration."""

from torch import nn

from detectron_libra.config.schema import Config
from detectron_libra.geometry import GEOMETRIES, Geometry
from detectron_libra.modeling.losses import BalancedL1Loss, SmoothL1Loss
from detectron_libra.modeling.norm import ChannelsPerGroup, Groups
from detectron_libra.modeling.suppression import BoxVoting, DetectionRule, SoftNMS

EVERY_BOX = 1 << 30  # a limit that limits nothing: the meaning of 0 in Detectron's keys


def geometry_of(cfg: Config) -> Geometry:
    """The box convention."""
    return GEOMETRIES[cfg.MODEL.BOX_GEOMETRY]


def norm_groups(cfg: Config) -> Groups:
    """Groups of every GroupNorm: GROUP_NORM.NUM_GROUPS of them, or as many as GROUP_NORM.DIM_PER_GP gives."""
    g = cfg.GROUP_NORM
    return ChannelsPerGroup(g.DIM_PER_GP) if g.DIM_PER_GP > 0 else g.NUM_GROUPS


def box_loss(cfg: Config, smooth_l1_beta: float) -> nn.Module:
    """The loss of the detector's final boxes: balanced L1 where it is on."""
    b = cfg.LIBRA.BALANCED_L1
    if b.ON:
        return BalancedL1Loss(alpha=b.ALPHA, gamma=b.GAMMA, beta=b.BETA, form=b.FORM)
    return SmoothL1Loss(beta=smooth_l1_beta)


def crowd_threshold(cfg: Config) -> float | None:
    """Anchors mostly inside a crowd are ignored; Detectron trains them as background, and so does its geometry."""
    return 0.5 if geometry_of(cfg).rules == "continuous" else None


def detection_rule(cfg: Config, score_threshold: float) -> DetectionRule:
    """What is reported of an image."""
    soft, voting = cfg.TEST.SOFT_NMS, cfg.TEST.BBOX_VOTE
    return DetectionRule(
        score_threshold=score_threshold,
        nms_threshold=cfg.TEST.NMS,
        detections_per_image=cfg.TEST.DETECTIONS_PER_IM or EVERY_BOX,
        geometry=geometry_of(cfg),
        box_clip=cfg.BBOX_XFORM_CLIP,
        regress=cfg.TEST.BBOX_REG,
        soft=SoftNMS(soft.METHOD, soft.SIGMA) if soft.ENABLED else None,
        voting=BoxVoting(voting.VOTE_TH, voting.SCORING_METHOD, voting.SCORING_METHOD_BETA)
        if voting.ENABLED
        else None,
        # Detectron cuts an R-CNN's detections at a score and a RetinaNet's at a number
        keep_ties=cfg.MODEL.BOX_GEOMETRY == "detectron" and not cfg.RETINANET.RETINANET_ON,
    )
