# SPDX-License-Identifier: Apache-2.0
"""What the shapes of weights under our names tell about the network, as configuration keys."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from torch import Tensor

from detectron_libra.errors import InputError

#: (kind of block, blocks per stage) -> name in MODEL.CONV_BODY.
RESNETS = {
    ("basic", (2, 2, 2, 2)): "ResNet18",
    ("basic", (3, 4, 6, 3)): "ResNet34",
    ("bottleneck", (3, 4, 6, 3)): "ResNet50",
    ("bottleneck", (3, 4, 23, 3)): "ResNet101",
    ("bottleneck", (3, 8, 36, 3)): "ResNet152",
}
STAGES = (2, 3, 4, 5)
REFERENCE_WIDTH = 64
RATIOS = (0.5, 1.0, 2.0)
OCTAVES = 3  # sizes per ratio of every published RetinaNet

STEM = "backbone.stem.conv.weight"
CLS_SCORE, BBOX_PRED = "regions.predictor.cls_score.weight", "regions.predictor.bbox_pred.weight"
CLS_PRED, BOX_PRED = "head.cls_pred.weight", "head.box_pred.weight"
OBJECTNESS = "rpn.objectness.weight"


def shape(state: Mapping[str, Tensor], name: str, dims: int, source: str) -> tuple[int, ...]:
    """The shape of a tensor that has to be there with so many dimensions, all of them positive.

    Raises:
        InputError: it is not.
    """
    if name not in state:
        raise InputError(f"{source}: lacks {name}; no weights of a network that is built here")
    found = tuple(state[name].shape)
    if len(found) != dims or 0 in found:
        raise InputError(f"{source}: {name} has the shape {found}, {dims} dimensions are needed")
    return found


def backbone_settings(state: Mapping[str, Tensor], source: str) -> dict[str, object]:
    """Keys of the ResNet or ResNeXt; MODEL.CONV_BODY is that with a pyramid.

    Raises:
        InputError: no ResNet of four stages with the usual stem.
    """
    width, _, kernel, _ = shape(state, STEM, 4, source)
    if kernel != 7:
        raise InputError(f"{source}: the stem has a {kernel}x{kernel} convolution; only 7x7 is read")
    blocks = tuple(_blocks(state, stage, source) for stage in STAGES)
    block = "bottleneck" if "backbone.res2.0.conv3.weight" in state else "basic"
    name = RESNETS.get((block, blocks))
    settings: dict[str, object] = {"MODEL.CONV_BODY": f"FPN.add_fpn_{name or 'ResNet50'}_conv5_body"}
    if name is None:
        settings |= {"RESNETS.STAGE_BLOCKS": blocks, "RESNETS.BLOCK": block}
    if width != REFERENCE_WIDTH:
        settings["RESNETS.WIDTH"] = width
    if block == "bottleneck":
        channels, per_group, _, _ = shape(state, "backbone.res2.0.conv2.weight", 4, source)
        settings["RESNETS.NUM_GROUPS"] = channels // per_group
        settings["RESNETS.WIDTH_PER_GROUP"] = per_group * REFERENCE_WIDTH // width
    return settings


def _blocks(state: Mapping[str, Tensor], stage: int, source: str) -> int:
    numbers = {int(m[1]) for n in state if (m := re.match(rf"backbone\.res{stage}\.(\d{{1,3}})\.conv1\.", n))}
    if numbers != set(range(len(numbers))) or not numbers:
        raise InputError(f"{source}: blocks of stage {stage} are missing; no ResNet of four stages")
    return len(numbers)


def finest_level(names: Collection[str], lateral: str, source: str) -> int:
    """Level of a pyramid's first lateral convolution, the last one being that of C5.

    Args:
        names: of the framework's tensors.
        lateral: pattern of the lateral convolutions' weights.

    Raises:
        InputError: none, or more than a ResNet has stages.
    """
    count = sum(1 for name in names if re.fullmatch(lateral, name))
    if not 1 <= count <= len(STAGES):
        raise InputError(f"{source}: {count} levels in the pyramid; one to four are read")
    return STAGES[-1] + 1 - count


def pyramid_settings(state: Mapping[str, Tensor], source: str) -> dict[str, object]:
    """Keys of the feature pyramid: its width, and how levels above C5 come about.

    Raises:
        InputError: no pyramid on C5.
    """
    dim, inputs, _, _ = shape(state, "neck.lateral.5.weight", 4, source)
    settings: dict[str, object] = {"FPN.FPN_ON": True, "FPN.DIM": dim, "FPN.COARSEST_STRIDE": 32}
    if "neck.extra.6.weight" in state:
        extra_inputs = shape(state, "neck.extra.6.weight", 4, source)[1]
        settings["FPN.EXTRA_CONV_LEVELS"] = True
        settings["FPN.EXTRA_SOURCE"] = "C5" if extra_inputs == inputs != dim else "P5"
    return settings


def retinanet_settings(state: Mapping[str, Tensor], source: str) -> dict[str, object]:
    """Keys of a RetinaNet with three sizes and three ratios of anchors on P3 to P7.

    Raises:
        InputError: another number of anchors, or levels.
    """
    anchors = OCTAVES * len(RATIOS)
    outputs, channels, _, _ = shape(state, CLS_PRED, 4, source)
    if outputs % anchors or shape(state, BOX_PRED, 4, source)[0] != 4 * anchors:
        raise InputError(
            f"{source}: the head has not {anchors} anchors per cell; only such a RetinaNet is read"
        )
    if "neck.extra.7.weight" not in state or "neck.lateral.2.weight" in state:
        raise InputError(
            f"{source}: the pyramid is not P3 to P7 with convolutions for P6 and P7; it is not read"
        )
    depth = sum(1 for n in state if re.match(r"head\.cls_tower\.\d+\.weight", n) and state[n].dim() == 4)
    normed = any(
        n.startswith("head.cls_tower.") and state[n].dim() == 1 and n.endswith("weight") for n in state
    )
    return {
        "MODEL.TYPE": "retinanet",
        "RETINANET.RETINANET_ON": True,
        "RETINANET.NUM_CONVS": depth,
        "RETINANET.HEAD_DIM": channels,
        "RETINANET.HEAD_NORM": "group" if normed else "none",
        "RETINANET.ASPECT_RATIOS": RATIOS,
        "RETINANET.SCALES_PER_OCTAVE": OCTAVES,
        "RETINANET.ANCHOR_SCALE": 4,
        "FPN.MULTILEVEL_RPN": True,
        "FPN.RPN_MIN_LEVEL": 3,
        "FPN.RPN_MAX_LEVEL": 7,
    }


def faster_rcnn_settings(state: Mapping[str, Tensor], source: str) -> dict[str, object]:
    """Keys of a Faster R-CNN, or of a Fast R-CNN where there is no RPN, with two fully connected layers on P2 to P5.

    Raises:
        InputError: another number of anchors, levels or outputs.
    """
    rpn = OBJECTNESS in state
    if rpn and shape(state, OBJECTNESS, 4, source)[0] != len(RATIOS):
        raise InputError(f"{source}: the RPN has not {len(RATIOS)} anchors per cell; it is not read")
    if "neck.lateral.2.weight" not in state:
        raise InputError(f"{source}: the pyramid does not begin at P2; it is not read")
    dim = shape(state, "neck.lateral.5.weight", 4, source)[0]
    hidden, inputs = shape(state, "regions.head.fc6.weight", 2, source)
    classes, _ = shape(state, CLS_SCORE, 2, source)
    outputs, _ = shape(state, BBOX_PRED, 2, source)
    resolution = math.isqrt(inputs // dim)
    if resolution**2 * dim != inputs or outputs not in (8, 4 * classes):
        raise InputError(f"{source}: {inputs} inputs or {outputs} outputs of the head do not fit the network")
    return {
        "MODEL.TYPE": "generalized_rcnn",
        "MODEL.FASTER_RCNN": rpn,
        "MODEL.CLS_AGNOSTIC_BBOX_REG": outputs == 8 and classes != 2,
        "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head",
        "FAST_RCNN.MLP_HEAD_DIM": hidden,
        "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
        "FAST_RCNN.ROI_XFORM_RESOLUTION": resolution,
        "FPN.MULTILEVEL_ROIS": True,
        "FPN.MULTILEVEL_RPN": True,  # also without an RPN: a balanced pyramid is the mean of P2 to P6
        "FPN.RPN_MIN_LEVEL": 2,
        "FPN.RPN_MAX_LEVEL": 6,
        "FPN.RPN_ASPECT_RATIOS": RATIOS,
        "FPN.RPN_ANCHOR_START_SIZE": 32,
    }


def num_classes(state: Mapping[str, Tensor]) -> int | None:
    """Classes with the background that weights of a detector have; None for a backbone alone."""
    if CLS_SCORE in state:
        return state[CLS_SCORE].shape[0]
    if CLS_PRED in state:
        return state[CLS_PRED].shape[0] // (OCTAVES * len(RATIOS)) + 1
    return None


def network_settings(state: Mapping[str, Tensor], source: str) -> dict[str, object]:
    """Keys of the whole detector, whichever it is.

    Raises:
        InputError: none that is built here.
    """
    settings = backbone_settings(state, source) | pyramid_settings(state, source)
    if CLS_PRED in state:
        return settings | retinanet_settings(state, source)
    return settings | faster_rcnn_settings(state, source)
