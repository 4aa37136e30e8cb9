# SPDX-License-Identifier: Apache-2.0
"""Configuration to the R-CNN family: Faster R-CNN, its proposal network alone, and Fast R-CNN."""

from typing import Any

from torch import Tensor

from detectron_libra.builders.anchors import rpn_anchors
from detectron_libra.builders.backbone import Features, build_trunk
from detectron_libra.builders.imbalance import anchor_assigner
from detectron_libra.builders.regions import region_head
from detectron_libra.builders.rules import EVERY_BOX, crowd_threshold, geometry_of
from detectron_libra.config.schema import Config
from detectron_libra.modeling.detectors.fast_rcnn import FastRCNN
from detectron_libra.modeling.detectors.faster_rcnn import FasterRCNN
from detectron_libra.modeling.detectors.rpn_only import RPNOnly
from detectron_libra.modeling.heads.rpn import RPNHead
from detectron_libra.modeling.losses import SmoothL1Loss
from detectron_libra.modeling.proposals import ProposalRule
from detectron_libra.modeling.rpn_loss import RPNRule

RPN_SMOOTH_L1_BETA = 1 / 9  # Detectron's rpn_heads.py


def proposal_rule(cfg: Config, *, training: bool) -> ProposalRule:
    """How many proposals go on."""
    keys = cfg.TRAIN if training else cfg.TEST
    pyramid_of_detectron = cfg.FPN.FPN_ON and geometry_of(cfg).rules == "detectron"
    return ProposalRule(
        pre_nms_top_n=keys.RPN_PRE_NMS_TOP_N or EVERY_BOX,
        post_nms_top_n=keys.RPN_POST_NMS_TOP_N or EVERY_BOX,
        nms_threshold=keys.RPN_NMS_THRESH,
        min_size=keys.RPN_MIN_SIZE,
        # Detectron cuts where it collects the levels of a pyramid; per image elsewhere: on one level, in
        # mmdetection, and what is meant where a batch is larger than Detectron's two
        per_batch=training and pyramid_of_detectron,
        geometry=geometry_of(cfg),
        box_clip=cfg.BBOX_XFORM_CLIP,
        # Detectron takes the padded size for the image's at test time, and its published figures are of that
        frame_stride=cfg.FPN.COARSEST_STRIDE if pyramid_of_detectron and not training else 1,
    )


def rpn_rule(cfg: Config) -> RPNRule:
    """What the proposal network learns."""
    t = cfg.TRAIN
    return RPNRule(
        positive=t.RPN_POSITIVE_OVERLAP,
        negative=t.RPN_NEGATIVE_OVERLAP,
        straddle=t.RPN_STRADDLE_THRESH,
        batch_size=t.RPN_BATCH_SIZE_PER_IM,
        fg_fraction=t.RPN_FG_FRACTION,
        geometry=geometry_of(cfg),
        assignment=geometry_of(cfg).rules,
        min_positive=t.RPN_NEGATIVE_OVERLAP if geometry_of(cfg).rules == "continuous" else 0.0,
        crowd_threshold=crowd_threshold(cfg),
        mean_over_labelled=not cfg.FPN.FPN_ON,
        assigner=anchor_assigner(cfg),
    )


def first_stage(cfg: Config) -> tuple[dict[str, Any], Features]:
    """Arguments of ``ProposingTrunk``, and what heads find there."""
    trunk, features = build_trunk(cfg)
    anchors = rpn_anchors(cfg, features)
    rpn = RPNHead(channels=features.channels, num_anchors=anchors.anchors_per_cell[0])
    arguments = {
        "rpn": rpn,
        "anchors": anchors,
        "rpn_rule": rpn_rule(cfg),
        "rpn_box_loss": SmoothL1Loss(beta=RPN_SMOOTH_L1_BETA),
        "train_proposals": proposal_rule(cfg, training=True),
        "test_proposals": proposal_rule(cfg, training=False),
    }
    return trunk | arguments, features


def build_faster_rcnn(cfg: Config, num_classes: int, class_counts: Tensor | None = None) -> FasterRCNN:
    """Faster R-CNN for ``num_classes`` classes, background included; class_counts as in ``build_detector``."""
    arguments, features = first_stage(cfg)
    regions = region_head(cfg, num_classes, features, crowd_threshold(cfg), class_counts)
    return FasterRCNN(**arguments, regions=regions)


def build_rpn_only(cfg: Config) -> RPNOnly:
    """The proposal network alone, which knows no classes."""
    arguments, _ = first_stage(cfg)
    return RPNOnly(**arguments)


def build_fast_rcnn(cfg: Config, num_classes: int, class_counts: Tensor | None = None) -> FastRCNN:
    """Fast R-CNN for ``num_classes`` classes, background included; stored proposals come with its images.

    ``class_counts`` as in ``build_detector``.
    """
    trunk, features = build_trunk(cfg)
    # What Detectron does to stored proposals in crowds, and not to those of a network that is being trained
    threshold = cfg.TRAIN.CROWD_FILTER_THRESH or None
    return FastRCNN(**trunk, regions=region_head(cfg, num_classes, features, threshold, class_counts))
