# SPDX-License-Identifier: Apache-2.0
"""Configuration to detector."""

import logging
import math

from torch import nn

from detectron_libra.builders.rcnn import build_fast_rcnn, build_faster_rcnn, build_rpn_only
from detectron_libra.builders.retinanet import build_retinanet
from detectron_libra.config.fields import values_of
from detectron_libra.config.schema import KEYS, Config
from detectron_libra.errors import UsageError

log = logging.getLogger(__name__)

#: Keys that would change what comes out, but do not yet: told when they are set.
WITHOUT_EFFECT_YET = (
    "EXPECTED_RESULTS",
    "TEST.COMPETITION_MODE",
    "VIS",
)


def loss_weights(cfg: Config) -> dict[str, float]:
    """Factor of each part of the loss; where Detectron has one of its own for the same part, the two multiply."""
    w = cfg.LOSS.WEIGHTS
    if cfg.RETINANET.RETINANET_ON:
        return {"cls": w.CLS, "bbox": w.BBOX * cfg.RETINANET.BBOX_REG_WEIGHT}
    second = {} if cfg.MODEL.RPN_ONLY else {"cls": w.CLS, "bbox": w.BBOX}
    first = {"rpn_cls": w.RPN_CLS, "rpn_bbox": w.RPN_BBOX} if cfg.RPN.RPN_ON else {}
    return second | first


def refuse_what_is_missing(cfg: Config) -> None:
    """Keys that parse but have no effect yet: an error where they ask for something.

    Raises:
        UsageError: naming the key.
    """
    values = values_of(cfg)
    ignored = [name for name in WITHOUT_EFFECT_YET if values[name] != KEYS[name].default]
    if ignored:
        log.warning("%s: without effect yet", ", ".join(ignored))
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
    if cfg.MODEL.RPN_ONLY:  # as in Detectron it wins over FASTER_RCNN, whose second stage then is left out
        return build_rpn_only(cfg)
    if cfg.MODEL.FASTER_RCNN:
        return build_faster_rcnn(cfg, num_classes)
    if cfg.FAST_RCNN.ROI_BOX_HEAD:
        return build_fast_rcnn(cfg, num_classes)
    raise UsageError(
        "MODEL: no detector is switched on; set RETINANET.RETINANET_ON, MODEL.FASTER_RCNN or MODEL.RPN_ONLY to True, "
        "or FAST_RCNN.ROI_BOX_HEAD for a Fast R-CNN on stored proposals"
    )
