# SPDX-License-Identifier: Apache-2.0
"""Configuration to RetinaNet."""

from torch import Tensor

from detectron_libra.builders.anchors import anchor_levels, retinanet_anchors
from detectron_libra.builders.backbone import build_trunk
from detectron_libra.builders.imbalance import (
    anchor_assigner,
    dense_class_loss,
    final_box_loss,
    negative_sampler,
)
from detectron_libra.builders.rules import crowd_threshold, detection_rule, geometry_of, norm_groups
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError
from detectron_libra.modeling.detectors.retinanet import RetinaNet
from detectron_libra.modeling.heads.retinanet import RetinaNetHead
from detectron_libra.modeling.retinanet_loss import NegativeChoice, RetinaNetRule


def build_retinanet(cfg: Config, num_classes: int, class_counts: Tensor | None = None) -> RetinaNet:
    """RetinaNet for ``num_classes`` classes, background included; class_counts as in ``build_detector``."""
    r = cfg.RETINANET
    if r.CLASS_SPECIFIC_BBOX:
        raise UsageError(
            "RETINANET.CLASS_SPECIFIC_BBOX: Detectron cannot test it, nor can we; set it to False"
        )
    trunk, _ = build_trunk(cfg)
    head = RetinaNetHead(
        channels_in=cfg.FPN.DIM,
        channels=r.HEAD_DIM or cfg.FPN.DIM,
        num_convs=r.NUM_CONVS,
        num_anchors=len(r.ASPECT_RATIOS) * r.SCALES_PER_OCTAVE,
        num_classes=num_classes - 1,
        prior=r.PRIOR_PROB,
        norm=r.HEAD_NORM,
        norm_groups=norm_groups(cfg),
        norm_eps=cfg.GROUP_NORM.EPSILON,
        share_towers=r.SHARE_CLS_BBOX_TOWER,
        softmax=r.SOFTMAX,
    )
    sampling = cfg.LIBRA.IOU_SAMPLING
    rule = RetinaNetRule(
        positive=r.POSITIVE_OVERLAP,
        negative=r.NEGATIVE_OVERLAP,
        alpha=r.LOSS_ALPHA,
        gamma=r.LOSS_GAMMA,
        num_classes=num_classes - 1,
        softmax=r.SOFTMAX,
        geometry=geometry_of(cfg),
        assignment=geometry_of(cfg).rules,
        crowd_threshold=crowd_threshold(cfg),
        negatives=NegativeChoice(sampling.NEGATIVES_PER_IM, negative_sampler(cfg)) if sampling.ON else None,
        assigner=anchor_assigner(cfg),
    )
    return RetinaNet(
        **trunk,  # type: ignore[arg-type]
        head=head,
        anchors=retinanet_anchors(cfg, anchor_levels(cfg)),
        rule=rule,
        box_loss=final_box_loss(cfg, r.BBOX_REG_BETA),
        class_loss=dense_class_loss(cfg, num_classes - 1, class_counts),
        pre_nms_top_n=r.PRE_NMS_TOP_N,
        detection=detection_rule(cfg, r.INFERENCE_TH),
    )
