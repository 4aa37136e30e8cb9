# SPDX-License-Identifier: Apache-2.0
"""Weights of detectron2: RetinaNet and Faster R-CNN on a ResNet with FPN, and its ImageNet files, Caffe2's too.

Source: detectron2's modeling, its COCO-Detection configs, and checkpoint/c2_model_loading.py.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping

from torch import Tensor

from detectron_libra.weights.architecture import (
    CLS_PRED,
    backbone_settings,
    finest_level,
    network_settings,
)
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.preprocessing import (
    Preprocessing,
    for_backbone_alone,
    of_backbone,
    strides_in_1x1,
)
from detectron_libra.weights.translate import (
    Rule,
    put_background_first,
    translate,
)

log = logging.getLogger(__name__)

KIND = "detectron2"
BODY = "backbone.bottom_up."
PARTS = r"backbone\.|proposal_generator\.rpn_head\.|roi_heads\.box_|head\.|stem\.conv|res\d\."
LATERAL = r"backbone\.fpn_lateral\d\.weight"
BN_EPS = 1e-5
#: Endings of Caffe2's names, and detectron2's for them.
CAFFE2_KINDS = {
    "w": "weight",
    "b": "bias",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
}
CAFFE2_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
SETTINGS = {
    "MODEL.BOX_GEOMETRY": "continuous",
    "FPN.EXTRA_RELU": True,
    "TEST.SCALE": 800,
    "TEST.MAX_SIZE": 1333,
    "TEST.NMS": 0.5,
    "TEST.DETECTIONS_PER_IM": 100,
}
RETINANET = {"RETINANET.INFERENCE_TH": 0.05, "RETINANET.PRE_NMS_TOP_N": 1000}
FASTER_RCNN = {
    "MODEL.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": 0,
    "TEST.SCORE_THRESH": 0.05,
    "TEST.RPN_NMS_THRESH": 0.7,
    "TEST.RPN_PRE_NMS_TOP_N": 1000,
    "TEST.RPN_POST_NMS_TOP_N": 1000,
}


def recognise(names: Collection[str]) -> bool:
    """Whether tensors of these names are of a detector or an ImageNet network of detectron2."""
    return any(f"{prefix}stem.conv1.weight" in names for prefix in (BODY, "")) or "res2_0_branch2a_w" in names


def rules(prefix: str) -> list[Rule]:
    """Our names of the layers, the backbone's being behind ``prefix``."""
    block = rf"{re.escape(prefix)}res([2-5])\.(\d{{1,3}})\."
    return [
        (rf"{re.escape(prefix)}stem\.conv1", "backbone.stem.conv"),
        (rf"{re.escape(prefix)}stem\.conv1\.norm", "backbone.stem.norm"),
        (rf"{block}conv([123])", r"backbone.res\1.\2.conv\3"),
        (rf"{block}conv([123])\.norm", r"backbone.res\1.\2.norm\3"),
        (rf"{block}shortcut", r"backbone.res\1.\2.shortcut"),
        (rf"{block}shortcut\.norm", r"backbone.res\1.\2.shortcut_norm"),
        (r"backbone\.fpn_(lateral|output)([2-5])", r"neck.\1.\2"),
        (r"backbone\.top_block\.p([67])", r"neck.extra.\1"),
        (r"proposal_generator\.rpn_head\.conv", "rpn.conv"),
        (r"proposal_generator\.rpn_head\.objectness_logits", "rpn.objectness"),
        (r"proposal_generator\.rpn_head\.anchor_deltas", "rpn.deltas"),
        (r"roi_heads\.box_head\.fc([12])", lambda m: f"regions.head.fc{5 + int(m[1])}"),
        (r"roi_heads\.box_predictor\.(cls_score|bbox_pred)", r"regions.predictor.\1"),
        (r"head\.cls_subnet\.(\d{1,3})", r"head.cls_tower.\1"),
        (r"head\.bbox_subnet\.(\d{1,3})", r"head.box_tower.\1"),
        (r"head\.cls_score", "head.cls_pred"),
        (r"head\.bbox_pred", "head.box_pred"),
    ]


def from_caffe2(name: str) -> str:
    """detectron2's name of a tensor of a Caffe2 ResNet; other names as they are."""
    kinds = "|".join(CAFFE2_KINDS)
    if match := re.fullmatch(rf"(?:res_)?conv1_({kinds})", name):
        return f"stem.conv1.{CAFFE2_KINDS[match[1]]}"
    if match := re.fullmatch(rf"res([2-5])_(\d+)_branch(1|2[abc])_({kinds})", name):
        return f"res{match[1]}.{match[2]}.{CAFFE2_BRANCHES[match[3]]}.{CAFFE2_KINDS[match[4]]}"
    return name


def from_detectron2(tensors: Mapping[str, Tensor], *, source: str, metadata: Mapping[str, object]) -> Weights:
    """Weights of detectron2 under our names and in our orders.

    Args:
        tensors: the file's ``model``.
        source: the file's name.
        metadata: what stands beside it; nothing there is needed.

    Raises:
        InputError: a network that is not built here.
    """
    if f"{BODY}stem.conv1.weight" in tensors:
        return _detector(tensors, source)
    # Caffe2 gives the stem a bias that its normalisation swallowed; detectron2 leaves it out too.
    named = {from_caffe2(name): tensor for name, tensor in tensors.items()}
    bias = named.pop("stem.conv1.bias", None)
    state, preserved = translate(named, rules(""), parts=PARTS, eps=BN_EPS, source=source)
    if bias is not None:
        preserved["conv1_b"] = bias.numpy()
    settings = for_backbone_alone(backbone_settings(state, source), tensors)
    return Weights(
        source=source, kind=KIND, state=state, settings=settings, preserved=preserved, backbone_only=True
    )


def _detector(tensors: Mapping[str, Tensor], source: str) -> Weights:
    finest_level(tensors, LATERAL, source)
    state, preserved = translate(tensors, rules(BODY), parts=PARTS, eps=BN_EPS, source=source)
    put_background_first(state)
    network = network_settings(state, source)
    grouped = network.get("RESNETS.NUM_GROUPS", 1) != 1
    pixels = _preprocessing(tensors, grouped)
    caffe = strides_in_1x1(tensors, grouped=grouped)
    settings = network | pixels.settings() | SETTINGS | {"RESNETS.STRIDE_1X1": caffe}
    return Weights(
        source=source,
        kind=KIND,
        state=state,
        settings=settings | (RETINANET if CLS_PRED in state else FASTER_RCNN),
        preserved=preserved,
    )


def _preprocessing(tensors: Mapping[str, Tensor], grouped: bool) -> Preprocessing:
    """As older files say themselves; without that, as the backbone's weights want it."""
    means, stds = (tensors.get(f"pixel_{name}") for name in ("mean", "std"))
    if means is None or stds is None or means.numel() != 3 or stds.numel() != 3 or not bool((stds > 0).all()):
        return of_backbone(tensors, grouped=grouped)
    numbers = [tuple(round(float(v), 4) for v in t.flatten()) for t in (means, stds)]
    return Preprocessing("BGR" if numbers[0][0] < numbers[0][2] else "RGB", *numbers)
