# SPDX-License-Identifier: Apache-2.0
"""The configuration to a detector of torchvision that computes the same, as far as its classes allow.

Source of the composition: torchvision's models/detection/{retinanet,faster_rcnn,backbone_utils}.py. Its own functions
``retinanet_resnet50_fpn`` and ``fasterrcnn_resnet50_fpn`` train every layer where no weights are given.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from detectron_libra.builders.backbone import architecture, backbone_norm, body, pyramid_norm
from detectron_libra.builders.benchmark.plan import Size
from detectron_libra.builders.check import BRANCH_SHARE
from detectron_libra.builders.rules import geometry_of
from detectron_libra.builders.session import libra_parts
from detectron_libra.config import Config, pyramid_levels
from detectron_libra.errors import UsageError

#: FREEZE_AT -> stages that torchvision leaves trainable, from the last one on.
TRAINABLE = {0: 5, 2: 3, 3: 2, 4: 1, 5: 0}
STAGES_FROM_LAST = ("layer4", "layer3", "layer2", "layer1", "conv1")
TOWER_CONVS = 4  # of its RetinaNet's head
NORMS = {"affine": "FrozenBatchNorm2d", "batch": "BatchNorm2d"}


def require_counterpart(cfg: Config) -> None:
    """Refuses a configuration that torchvision has no detector for.

    Raises:
        UsageError: the first key without a counterpart.
    """
    r = cfg.RETINANET
    dense = r.RETINANET_ON
    levels = pyramid_levels(cfg) if cfg.FPN.FPN_ON else None
    extra = dense and cfg.FPN.EXTRA_CONV_LEVELS
    needed: dict[str, tuple[object, tuple[object, ...]]] = {
        "FPN.FPN_ON": (cfg.FPN.FPN_ON, (True,)),
        "MODEL.CONV_BODY": (body(cfg).name, ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")),
        "RESNETS.WIDTH": (architecture(cfg).get("width", 64), (64,)),
        "RESNETS.NORM": (backbone_norm(cfg), tuple(NORMS)),
        "FPN.NORM": (pyramid_norm(cfg), ("none",)),
        "FPN.RPN_MIN_LEVEL, FPN.RPN_MAX_LEVEL": (levels, ((3, 7), (2, 7)) if extra else ((2, 6), (3, 6))),
    }
    if dense:
        needed |= {
            "RETINANET.NUM_CONVS": (r.NUM_CONVS, (TOWER_CONVS,)),
            "RETINANET.HEAD_DIM": (r.HEAD_DIM or cfg.FPN.DIM, (cfg.FPN.DIM,)),
            "RETINANET.HEAD_NORM": (r.HEAD_NORM, ("none",)),
            "RETINANET.SHARE_CLS_BBOX_TOWER": (r.SHARE_CLS_BBOX_TOWER, (False,)),
            "RETINANET.SOFTMAX": (r.SOFTMAX, (False,)),
        }
    else:
        head = cfg.FAST_RCNN.ROI_BOX_HEAD.rpartition(".")[2]
        needed |= {
            "MODEL.FASTER_RCNN": (cfg.MODEL.FASTER_RCNN, (True,)),
            "MODEL.RPN_ONLY": (cfg.MODEL.RPN_ONLY, (False,)),
            "FAST_RCNN.ROI_BOX_HEAD": (head, ("add_roi_2mlp_head",)),
        }
    for key, (value, known) in needed.items():
        if value not in known:
            choices = " or ".join(str(k) for k in known)
            raise UsageError(
                f"{key}: {value}, but --peer torchvision has detectors with {choices} only; leave --peer out or set it"
            )


def differences(cfg: Config) -> list[str]:
    """What the two sides do not have in common."""
    geometry = geometry_of(cfg)
    told = {
        "anchors of torchvision have whole corners": not geometry.whole_anchors,
        f"only ours has the Libra parts: {libra_parts(cfg)}": libra_parts(cfg) != "none",
        "BOX_GEOMETRY detectron has no score threshold on the coarsest level: ours has more candidates in testing":
            geometry.keep_coarsest and cfg.RETINANET.RETINANET_ON,
        "BOX_GEOMETRY detectron keeps TRAIN.RPN_POST_NMS_TOP_N proposals of a batch, torchvision of each image":
            geometry.rules == "detectron" and not cfg.RETINANET.RETINANET_ON,
    }  # fmt: skip
    return [line for line, holds in told.items() if holds]


def build_model(cfg: Config, size: Size, pad_to: int) -> nn.Module:
    """RetinaNet or Faster R-CNN with random weights.

    Args:
        size: of all images, which are left as they are.
        pad_to: sides of the batch are multiples of it.
    """
    require_counterpart(cfg)
    transform = {"min_size": min(size), "max_size": max(size), "size_divisible": pad_to}
    build = _retinanet if cfg.RETINANET.RETINANET_ON else _faster_rcnn
    return build(cfg, _backbone(cfg), transform)


def _backbone(cfg: Config) -> nn.Module:
    resnet, ops = import_module("torchvision.models.resnet"), import_module("torchvision.ops")
    utils = import_module("torchvision.models.detection.backbone_utils")
    pyramid = import_module("torchvision.ops.feature_pyramid_network")
    arguments = architecture(cfg)
    block = resnet.Bottleneck if arguments["block"] == "bottleneck" else resnet.BasicBlock
    norm = ops.FrozenBatchNorm2d if backbone_norm(cfg) == "affine" else nn.BatchNorm2d
    net = resnet.ResNet(block, list(arguments["stage_blocks"]), norm_layer=norm)
    if arguments.get("stride_in_1x1"):
        _stride_in_1x1(net, resnet.Bottleneck)
    _calm(net, (resnet.Bottleneck, resnet.BasicBlock))
    trained = STAGES_FROM_LAST[: TRAINABLE[cfg.TRAIN.FREEZE_AT]]
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    low, _ = pyramid_levels(cfg)
    stages = [stage for stage in (2, 3, 4, 5) if stage >= low]
    channels = [64 * block.expansion * 2 ** (stage - 2) for stage in stages]
    extra = pyramid.LastLevelMaxPool()
    if cfg.FPN.EXTRA_CONV_LEVELS:
        dim = cfg.FPN.DIM
        extra = pyramid.LastLevelP6P7(dim if cfg.FPN.EXTRA_SOURCE == "P5" else channels[-1], dim)
    returned = {f"layer{stage - 1}": str(place) for place, stage in enumerate(stages)}
    return utils.BackboneWithFPN(net, returned, channels, cfg.FPN.DIM, extra_blocks=extra)


def _stride_in_1x1(net: nn.Module, bottleneck: type) -> None:
    """Detectron's own ResNets halve the image one convolution earlier, which is less work."""
    for module in net.modules():
        if isinstance(module, bottleneck):
            block: Any = module
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _calm(net: nn.Module, blocks: tuple[type, ...]) -> None:
    """As ``check.calmed`` does to ours: random weights and fixed normalisation make numbers that grow too large."""
    for module in net.modules():
        if isinstance(module, blocks):
            block: Any = module
            last = block.bn3 if hasattr(block, "bn3") else block.bn2
            if not isinstance(last, nn.BatchNorm2d):
                last.weight.mul_(BRANCH_SHARE)


def _retinanet(cfg: Config, backbone: nn.Module, transform: dict[str, Any]) -> nn.Module:
    detection = import_module("torchvision.models.detection")
    r, (low, high) = cfg.RETINANET, pyramid_levels(cfg)
    octaves = [2 ** (k / r.SCALES_PER_OCTAVE) for k in range(r.SCALES_PER_OCTAVE)]
    return detection.RetinaNet(
        backbone,
        num_classes=cfg.MODEL.NUM_CLASSES - 1,  # it counts outputs, and there is none for the background
        anchor_generator=_anchors(
            [[int(2**level * r.ANCHOR_SCALE * o) for o in octaves] for level in range(low, high + 1)],
            r.ASPECT_RATIOS,
        ),
        score_thresh=r.INFERENCE_TH,
        nms_thresh=cfg.TEST.NMS,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IM or None,
        fg_iou_thresh=r.POSITIVE_OVERLAP,
        bg_iou_thresh=r.NEGATIVE_OVERLAP,
        topk_candidates=r.PRE_NMS_TOP_N,
        **transform,
    )


def _faster_rcnn(cfg: Config, backbone: nn.Module, transform: dict[str, Any]) -> nn.Module:
    detection, ops = import_module("torchvision.models.detection"), import_module("torchvision.ops")
    parts = import_module("torchvision.models.detection.faster_rcnn")
    t, f, test, (low, high) = cfg.TRAIN, cfg.FAST_RCNN, cfg.TEST, pyramid_levels(cfg)
    sizes = [[cfg.FPN.RPN_ANCHOR_START_SIZE * 2 ** (level - low)] for level in range(low, high + 1)]
    pool = ops.MultiScaleRoIAlign(
        featmap_names=[str(k) for k in range(cfg.FPN.ROI_MAX_LEVEL - cfg.FPN.ROI_MIN_LEVEL + 1)],
        output_size=f.ROI_XFORM_RESOLUTION,
        sampling_ratio=f.ROI_XFORM_SAMPLING_RATIO or -1,
        canonical_scale=int(cfg.FPN.ROI_CANONICAL_SCALE),
        canonical_level=cfg.FPN.ROI_CANONICAL_LEVEL,
    )
    return detection.FasterRCNN(
        backbone,
        rpn_anchor_generator=_anchors(sizes, cfg.FPN.RPN_ASPECT_RATIOS),
        rpn_pre_nms_top_n_train=t.RPN_PRE_NMS_TOP_N,
        rpn_pre_nms_top_n_test=test.RPN_PRE_NMS_TOP_N,
        rpn_post_nms_top_n_train=t.RPN_POST_NMS_TOP_N,
        rpn_post_nms_top_n_test=test.RPN_POST_NMS_TOP_N,
        rpn_nms_thresh=t.RPN_NMS_THRESH,
        rpn_fg_iou_thresh=t.RPN_POSITIVE_OVERLAP,
        rpn_bg_iou_thresh=t.RPN_NEGATIVE_OVERLAP,
        rpn_batch_size_per_image=t.RPN_BATCH_SIZE_PER_IM,
        rpn_positive_fraction=t.RPN_FG_FRACTION,
        box_roi_pool=pool,
        box_head=parts.TwoMLPHead(cfg.FPN.DIM * f.ROI_XFORM_RESOLUTION**2, f.MLP_HEAD_DIM),
        box_predictor=parts.FastRCNNPredictor(f.MLP_HEAD_DIM, cfg.MODEL.NUM_CLASSES),
        box_score_thresh=test.SCORE_THRESH,
        box_nms_thresh=test.NMS,
        box_detections_per_img=test.DETECTIONS_PER_IM or None,
        box_fg_iou_thresh=t.FG_THRESH,
        box_bg_iou_thresh=t.BG_THRESH_HI,
        box_batch_size_per_image=t.BATCH_SIZE_PER_IM,
        box_positive_fraction=t.FG_FRACTION,
        bbox_reg_weights=cfg.MODEL.BBOX_REG_WEIGHTS,
        **transform,
    )


def _anchors(sizes: list[list[float]], ratios: tuple[float, ...]) -> Any:
    """The same sizes and ratios on every level."""
    utils = import_module("torchvision.models.detection.anchor_utils")
    return utils.AnchorGenerator(tuple(tuple(s) for s in sizes), (tuple(ratios),) * len(sizes))
