# SPDX-License-Identifier: Apache-2.0
"""Weights of mmdetection 2 and 3: RetinaNet, Faster and Fast R-CNN on a ResNet with FPN, with and without Libra.

Source: mmdetection 3.3's configs and models; its checkpoints' names, which version 2 shares.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping

from torch import Tensor

from detectron_libra.errors import InputError
from detectron_libra.weights.architecture import (
    CLS_PRED,
    OCTAVES,
    RATIOS,
    finest_level,
    network_settings,
    num_classes,
)
from detectron_libra.weights.contents import Weights
from detectron_libra.weights.preprocessing import Preprocessing, of_backbone, strides_in_1x1
from detectron_libra.weights.translate import (
    Rule,
    octaves_first,
    put_background_first,
    resnet_rules,
    translate,
)

log = logging.getLogger(__name__)

KIND = "mmdetection"
BN_EPS = 1e-5
PARTS = r"backbone\.|neck\.|rpn_head\.|bbox_head\.|roi_head\.bbox_head\."
HEADS = ("rpn_head.rpn_cls.weight", "roi_head.bbox_head.fc_cls.weight", "bbox_head.retina_cls.weight")
LATERAL = r"neck\.(0\.)?lateral_convs\.\d+\.conv\.weight"
BALANCED = "neck.1.refine."
#: Standard deviations of box deltas in every published two-stage model; our factors are their inverse.
TARGET_STDS = (0.1, 0.1, 0.2, 0.2)
NUMBER = r"\s*-?\d{1,9}(?:\.\d{0,20})?(?:e-?\d{1,2})?"


def recognise(names: Collection[str]) -> bool:
    """Whether tensors of these names are of a detector of mmdetection."""
    heads = ("neck.", "rpn_head.", "roi_head.", "bbox_head.")
    return "backbone.layer1.0.conv1.weight" in names and any(name.startswith(heads) for name in names)


def rules(finest: int) -> list[Rule]:
    """Our names of the layers, with a pyramid that begins at level ``finest``."""
    stages = 6 - finest

    def output(m: re.Match[str]) -> str:
        level = finest + int(m[2])
        return f"neck.{'output' if int(m[2]) < stages else 'extra'}.{level}"

    return [
        *resnet_rules("backbone."),
        (r"neck\.(0\.)?lateral_convs\.(\d{1,3})\.conv", lambda m: f"neck.lateral.{finest + int(m[2])}"),
        (r"neck\.(0\.)?fpn_convs\.(\d{1,3})\.conv", output),
        (r"neck\.1\.refine\.(g|theta|phi|conv_out)\.conv", r"balance.refine.\1"),
        (r"neck\.1\.refine\.conv", "balance.refine.conv"),
        (r"rpn_head\.rpn_conv", "rpn.conv"),
        (r"rpn_head\.rpn_cls", "rpn.objectness"),
        (r"rpn_head\.rpn_reg", "rpn.deltas"),
        (r"roi_head\.bbox_head\.shared_fcs\.([01])", lambda m: f"regions.head.fc{6 + int(m[1])}"),
        (r"roi_head\.bbox_head\.fc_cls", "regions.predictor.cls_score"),
        (r"roi_head\.bbox_head\.fc_reg", "regions.predictor.bbox_pred"),
        (r"bbox_head\.cls_convs\.(\d{1,3})\.conv", lambda m: f"head.cls_tower.{2 * int(m[1])}"),
        (r"bbox_head\.reg_convs\.(\d{1,3})\.conv", lambda m: f"head.box_tower.{2 * int(m[1])}"),
        (r"bbox_head\.retina_cls", "head.cls_pred"),
        (r"bbox_head\.retina_reg", "head.box_pred"),
    ]


def from_mmdet(tensors: Mapping[str, Tensor], *, source: str, metadata: Mapping[str, object]) -> Weights:
    """Weights of mmdetection under our names and in our orders.

    Classes come behind the background instead of before it, a RetinaNet's anchors size by size instead of ratio by
    ratio, and frozen normalisations as a scale and a shift.

    Args:
        tensors: the file's ``state_dict``.
        source: the file's name.
        metadata: what stands beside it; ``meta`` tells the classes and, in a text, the configuration.

    Raises:
        InputError: a network that is not built here, or weights of mmdetection 1.
    """
    if "bbox_head.fc_cls.weight" in tensors:
        raise InputError(
            f"{source}: weights of mmdetection 1, whose boxes and anchors differ; convert them with mmdetection's "
            "upgrade_model_version.py, or use those of version 2 or 3"
        )
    if not any(head in tensors for head in HEADS):
        raise InputError(
            f"{source}: a detector of mmdetection that is not built here; RetinaNet, Faster R-CNN are"
        )
    finest = finest_level(tensors, LATERAL, source)
    state, preserved = translate(tensors, rules(finest), parts=PARTS, eps=BN_EPS, source=source)
    reorder(state)
    meta = metadata.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    settings = _settings(state, tensors, _text(meta), source)
    log.warning(
        "%s: mmdetection makes images smaller without smoothing, here they are smoothed (MODEL.BOX_GEOMETRY "
        "continuous): of images that are larger than TEST.SCALE the scores differ slightly",
        source,
    )
    return Weights(
        source=source,
        kind=KIND,
        state=state,
        metadata=_metadata(meta, num_classes(state), source),
        settings=settings,
        preserved=preserved,
    )


def reorder(state: dict[str, Tensor]) -> None:
    """Classes and anchors from mmdetection's order to ours, in place."""
    put_background_first(state)
    for name in (f"head.{layer}.{kind}" for layer in ("cls_pred", "box_pred") for kind in ("weight", "bias")):
        if name in state and state[name].dim() and state[name].shape[0] % (OCTAVES * len(RATIOS)) == 0:
            state[name] = octaves_first(state[name], len(RATIOS), OCTAVES)


def _text(meta: Mapping) -> str:
    """The configuration that a checkpoint holds as text: ``config`` in version 2, ``cfg`` in 3."""
    for key in ("cfg", "config"):
        if isinstance(meta.get(key), str):
            return meta[key]
    return ""


def _metadata(meta: Mapping, classes: int | None, source: str) -> dict[str, str]:
    dataset = meta.get("dataset_meta")
    both = {**dataset, **meta} if isinstance(dataset, Mapping) else meta
    names = next((both[key] for key in ("CLASSES", "classes") if key in both), None)
    found = {"iteration": str(meta["iter"])} if type(meta.get("iter")) is int else {}
    if isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names):
        if classes is None or len(names) == classes - 1:
            return found | {"class_names": json.dumps(list(names))}
        log.warning(
            "%s: names %d classes, but its head has %d; names left out", source, len(names), classes - 1
        )
    return found


def _said(text: str, name: str, values: str) -> str | None:
    """What the configuration says last about ``name``; ``values`` is a pattern. A model's parts come in their order."""
    found = re.findall(rf"\b(?:{name})['\"]?\s*[=:]\s*['\"]?({values})", text)
    return found[-1] if found else None


def _numbers(text: str, name: str, count: int) -> tuple[float, ...]:
    said = _said(text, name, r"[\[(]" + r"\s*,".join([NUMBER] * count) + r"\s*,?\s*[\])]")
    return tuple(float(number) for number in re.findall(NUMBER, said or ""))


def _preprocessing(text: str, tensors: Mapping[str, Tensor], grouped: bool) -> Preprocessing:
    """As the configuration says; without one, that of the backbone's weights."""
    means, stds = _numbers(text, "mean", 3), _numbers(text, "std", 3)
    if not means or not stds:
        return of_backbone(tensors, grouped=grouped)
    rgb = _said(text, "(?:bgr_)?to_rgb", "True|False")
    return Preprocessing("BGR" if rgb == "False" else "RGB", means, stds)


def _settings(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], text: str, source: str
) -> dict[str, object]:
    settings = network_settings(state, source)
    grouped = settings.get("RESNETS.NUM_GROUPS", 1) != 1
    said = _said(text, "style", "pytorch|caffe")
    settings |= _preprocessing(text, tensors, grouped).settings() | {
        "MODEL.BOX_GEOMETRY": "continuous",
        "RESNETS.STRIDE_1X1": said == "caffe" if said else strides_in_1x1(tensors, grouped=grouped),
        "FPN.EXTRA_RELU": _said(text, "relu_before_extra_convs", "True|False") == "True",
        **_libra(tensors, text),
        "TEST.SCALE": 800,
        "TEST.MAX_SIZE": 1333,
        "TEST.NMS": 0.5,
        "TEST.DETECTIONS_PER_IM": 100,
    }
    if CLS_PRED in state:
        return settings | {"RETINANET.INFERENCE_TH": 0.05, "RETINANET.PRE_NMS_TOP_N": 1000}
    stds = _numbers(text, "target_stds", 4) or TARGET_STDS
    return settings | {
        "MODEL.BBOX_REG_WEIGHTS": tuple(round(1 / max(s, 1e-6), 6) for s in stds),
        "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": 0,
        "TEST.SCORE_THRESH": 0.05,
        "TEST.RPN_NMS_THRESH": 0.7,
        "TEST.RPN_PRE_NMS_TOP_N": 1000,
        "TEST.RPN_POST_NMS_TOP_N": 1000,
    }


def _libra(tensors: Mapping[str, Tensor], text: str) -> dict[str, object]:
    """Keys of the balanced pyramid, which refines P4 in every published model."""
    if not any(name.startswith(BALANCED) for name in tensors):
        return {}
    index = _said(text, "refine_level", r"\d")
    return {
        "LIBRA.PYRAMID.ON": True,
        "LIBRA.PYRAMID.REFINE": "non_local" if f"{BALANCED}g.conv.weight" in tensors else "conv",
        "LIBRA.PYRAMID.REFINE_LEVEL": finest_level(tensors, LATERAL, "") + int(index) if index else 4,
    }
