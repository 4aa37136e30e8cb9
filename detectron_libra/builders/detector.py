# SPDX-License-Identifier: Apache-2.0
"""Configuration to detector."""

from torch import Tensor, nn

from detectron_libra.builders.rcnn import build_fast_rcnn, build_faster_rcnn, build_rpn_only
from detectron_libra.builders.retinanet import build_retinanet
from detectron_libra.config.schema import Config
from detectron_libra.errors import UsageError


def loss_weights(cfg: Config) -> dict[str, float]:
    """Factor of each part of the loss; where Detectron has one of its own for the same part, the two multiply."""
    w = cfg.LOSS.WEIGHTS
    if cfg.RETINANET.RETINANET_ON:
        return {"cls": w.CLS, "bbox": w.BBOX * cfg.RETINANET.BBOX_REG_WEIGHT}
    second = {} if cfg.MODEL.RPN_ONLY else {"cls": w.CLS, "bbox": w.BBOX}
    first = {"rpn_cls": w.RPN_CLS, "rpn_bbox": w.RPN_BBOX} if cfg.RPN.RPN_ON else {}
    return second | first


def build_detector(cfg: Config, num_classes: int, class_counts: Tensor | None = None) -> nn.Module:
    """The detector that the configuration describes, with random weights.

    Args:
        num_classes: classes with background.
        class_counts: (num_classes - 1,) int64 boxes of each class in the training sets (``counts_of_classes``); only a
            model that is going to be trained from here on needs them.

    Raises:
        UsageError: a key asks for what there is not.
    """
    if cfg.RETINANET.RETINANET_ON:
        return build_retinanet(cfg, num_classes, class_counts)
    if cfg.MODEL.RPN_ONLY:  # as in Detectron it wins over FASTER_RCNN, whose second stage then is left out
        return build_rpn_only(cfg)
    if cfg.MODEL.FASTER_RCNN:
        return build_faster_rcnn(cfg, num_classes, class_counts)
    if cfg.FAST_RCNN.ROI_BOX_HEAD:
        return build_fast_rcnn(cfg, num_classes, class_counts)
    raise UsageError(
        "MODEL: no detector is switched on; set RETINANET.RETINANET_ON, MODEL.FASTER_RCNN or MODEL.RPN_ONLY to True, "
        "or FAST_RCNN.ROI_BOX_HEAD for a Fast R-CNN on stored proposals"
    )
