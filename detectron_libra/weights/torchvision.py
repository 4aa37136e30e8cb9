# SPDX-License-Identifier: Apache-2.0
"""Weights of torchvision: ImageNet ResNets and ResNeXts, fasterrcnn_resnet50_fpn and retinanet_resnet50_fpn(_v2).

Source: torchvision's models/resnet.py, models/detection and ops/feature_pyramid_network.py.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from detectron_libra.weights.architecture import (
    CLS_PRED,
    CLS_SCORE,
    OCTAVES,
    RATIOS,
    backbone_settings,
    finest_level,
    network_settings,
)
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.preprocessing import Preprocessing, for_backbone_alone
from detectron_libra.weights.translate import (
    COUNTER,
    Rule,
    as_array,
    octaves_first,
    resnet_rules,
    translate,
)

log = logging.getLogger(__name__)

KIND = "torchvision"
BODY = "backbone.body."
PARTS = r"backbone\.|rpn\.|roi_heads\.box_|head\."
LATERAL = r"backbone\.fpn\.inner_blocks\.\d+(\.0)?\.weight"
NORMED = "head.classification_head.conv.0.1.weight"
BN_EPS = 1e-5
#: Its published detectors have frozen normalisations without an epsilon; what is fine-tuned from them keeps it.
FROZEN_EPS = 0.0
#: A relative change of a scale by the other epsilon that is worth a warning.
NOTICEABLE = 1e-3
#: (torchvision's layer, ours, its numbers per class or 0 where it has no classes).
DENSE_OUTPUTS = (
    ("head.classification_head.cls_logits", "head.cls_pred", 1),
    ("head.regression_head.bbox_reg", "head.box_pred", 0),
)
REGION_OUTPUTS = (
    ("roi_heads.box_predictor.cls_score", "regions.predictor.cls_score", 1),
    ("roi_heads.box_predictor.bbox_pred", "regions.predictor.bbox_pred", 4),
)
COCO_OUTPUTS = 91
#: Numbers of COCO's categories that no image has, and 0, the background: outputs that nothing was trained for.
COCO_UNUSED = frozenset((0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
PREPROCESSING = Preprocessing(
    "RGB",
    tuple(round(255 * mean, 4) for mean in (0.485, 0.456, 0.406)),
    tuple(round(255 * std, 4) for std in (0.229, 0.224, 0.225)),
)
SETTINGS = {
    "MODEL.BOX_GEOMETRY": "torchvision",
    "RESNETS.STRIDE_1X1": False,
    "FPN.EXTRA_RELU": True,
    "TEST.SCALE": 800,
    "TEST.MAX_SIZE": 1333,
    "TEST.NMS": 0.5,
}
RETINANET = {
    "RETINANET.INFERENCE_TH": 0.05,
    "RETINANET.PRE_NMS_TOP_N": 1000,
    "TEST.DETECTIONS_PER_IM": 300,
}
FASTER_RCNN = {
    "MODEL.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": 2,
    "TEST.SCORE_THRESH": 0.05,
    "TEST.RPN_NMS_THRESH": 0.7,
    "TEST.RPN_PRE_NMS_TOP_N": 1000,
    "TEST.RPN_POST_NMS_TOP_N": 1000,
    "TEST.DETECTIONS_PER_IM": 100,
}


def recognise(names: Collection[str]) -> bool:
    """Whether tensors of these names are of a detector or an ImageNet network of torchvision."""
    return f"{BODY}conv1.weight" in names or {"conv1.weight", "layer1.0.conv1.weight"} <= set(names)


def rules(finest: int, *, normed: bool = False) -> list[Rule]:
    """Our names of a detector's layers, with a pyramid that begins at level ``finest``.

    Newer versions of torchvision put a convolution and what follows it into a list of their own: ``.0``, and ``.1``
    where the towers of a RetinaNet are ``normed``.
    """
    step = 3 if normed else 2  # our towers count activations too

    def tower(theirs: str, ours: str) -> list[Rule]:
        layer = rf"head\.{theirs}_head\.conv\.(\d{{1,3}})"
        return [
            (layer, rf"head.{ours}.\1"),
            (rf"{layer}\.([01])", lambda m: f"head.{ours}.{step * int(m[1]) + int(m[2])}"),
        ]

    return [
        *resnet_rules(BODY),
        (r"backbone\.fpn\.inner_blocks\.(\d{1,3})(\.0)?", lambda m: f"neck.lateral.{finest + int(m[1])}"),
        (r"backbone\.fpn\.layer_blocks\.(\d{1,3})(\.0)?", lambda m: f"neck.output.{finest + int(m[1])}"),
        (r"backbone\.fpn\.extra_blocks\.p([67])", r"neck.extra.\1"),
        (r"rpn\.head\.conv(\.0\.0)?", "rpn.conv"),
        (r"rpn\.head\.cls_logits", "rpn.objectness"),
        (r"rpn\.head\.bbox_pred", "rpn.deltas"),
        (r"roi_heads\.box_head\.fc([67])", r"regions.head.fc\1"),
        (r"roi_heads\.box_predictor\.(cls_score|bbox_pred)", r"regions.predictor.\1"),
        *tower("classification", "cls_tower"),
        *tower("regression", "box_tower"),
        (r"head\.classification_head\.cls_logits", "head.cls_pred"),
        (r"head\.regression_head\.bbox_reg", "head.box_pred"),
    ]


def from_torchvision(
    tensors: Mapping[str, Tensor], *, source: str, metadata: Mapping[str, object]
) -> Weights:
    """Weights of torchvision under our names and in our orders.

    Args:
        tensors: a model's ``state_dict``.
        source: the file's name.
        metadata: what stands beside it; torchvision has nothing there that is needed.

    Raises:
        InputError: a network that is not built here.
    """
    if f"{BODY}conv1.weight" in tensors:
        return _detector(tensors, source)
    state, preserved = translate(
        tensors, resnet_rules(""), parts=r"conv1|bn1|layer", eps=BN_EPS, source=source
    )
    settings = for_backbone_alone(backbone_settings(state, source), tensors)
    return Weights(
        source=source, kind=KIND, state=state, settings=settings, preserved=preserved, backbone_only=True
    )


def _detector(tensors: Mapping[str, Tensor], source: str) -> Weights:
    finest, eps = finest_level(tensors, LATERAL, source), _epsilon(tensors, source)
    named = rules(finest, normed=NORMED in tensors)
    state, preserved = translate(tensors, named, parts=PARTS, eps=eps, source=source)
    settings = network_settings(state, source) | PREPROCESSING.settings() | SETTINGS
    preserved |= choose_outputs(state, source)
    log.warning(
        "%s: torchvision rounds the size of a resized image down, here it is rounded to the nearest: boxes differ by "
        "parts of a pixel",
        source,
    )
    return Weights(
        source=source,
        kind=KIND,
        state=state,
        settings=settings | (RETINANET if CLS_PRED in state else FASTER_RCNN),
        preserved=preserved,
    )


def _epsilon(tensors: Mapping[str, Tensor], source: str) -> float:
    """That of the normalisations: trained ones count their batches, frozen ones were published without it."""
    if any(name.startswith(BODY) and name.endswith(COUNTER) for name in tensors):
        return BN_EPS
    variances = [
        t for n, t in tensors.items() if n.startswith(BODY) and n.endswith("running_var") and t.numel()
    ]
    smallest = min((float(t.min()) for t in variances), default=1.0)
    if smallest <= 0:
        log.warning("%s: a variance is 0, so the normalisations had an epsilon; taken as %g", source, BN_EPS)
        return BN_EPS
    if BN_EPS / (2 * smallest) > NOTICEABLE:
        log.warning(
            "%s: taken as trained without an epsilon in the frozen normalisations, as torchvision's published "
            "detectors and what was fine-tuned from them; outputs differ where that is not so",
            source,
        )
    return FROZEN_EPS


def kept_outputs(count: int, *, dense: bool) -> list[int]:
    """Which outputs of a head are kept: those of classes, and the background's where there is a softmax.

    Of COCO's 91 numbers the 80 that are used; of others all, but for a RetinaNet's output 0, the background's. In a
    softmax the share of those left out, which nothing was trained for, goes to the others.
    """
    background = [] if dense else [0]
    unused = COCO_UNUSED if count == COCO_OUTPUTS else {0}
    return background + [number for number in range(count) if number not in unused]


def choose_outputs(state: dict[str, Tensor], source: str) -> dict[str, np.ndarray]:
    """Classes and anchors from torchvision's order to ours, in place; ``state`` has passed ``network_settings``.

    Returns:
        The tensors that lost rows, as they were, under torchvision's names.
    """
    dense = CLS_PRED in state
    anchors = OCTAVES * len(RATIOS) if dense else 1
    count = state[CLS_PRED if dense else CLS_SCORE].shape[0] // anchors
    kept = kept_outputs(count, dense=dense)
    before: dict[str, np.ndarray] = {}
    for theirs, ours, per_class in DENSE_OUTPUTS if dense else REGION_OUTPUTS:
        for kind in ("weight", "bias"):
            rows = state.get(f"{ours}.{kind}")
            if rows is None or not rows.dim() or rows.shape[0] % (anchors * count * per_class or anchors):
                continue  # of another shape than the network says: told where it meets the model
            if per_class and len(kept) < count:
                before[f"{theirs}.{kind}"] = as_array(rows)
                groups = rows.view(anchors, count, per_class, *rows.shape[1:])
                rows = groups[:, torch.tensor(kept)].flatten(0, 2)
            state[f"{ours}.{kind}"] = octaves_first(rows, len(RATIOS), OCTAVES) if dense else rows
    if before:
        log.info("%s: %d outputs, of which %d are used", source, count, len(kept))
    return before
