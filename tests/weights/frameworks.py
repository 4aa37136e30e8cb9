# SPDX-License-Identifier: Apache-2.0
"""How other frameworks name the tensors of a detector, and what differs in their networks.

Source: mmdetection 3.3, torchvision 0.28 and detectron2: models, configurations and published state dicts.
"""

from dataclasses import dataclass

CLASSES = 3


@dataclass(frozen=True)
class Framework:
    """Templates of names, and what differs between the frameworks."""

    stem: str
    stem_norm: str
    block: str
    norm: str
    shortcut: str
    shortcut_norm: str
    lateral: str
    output: str
    extra: str
    rpn: tuple[str, str, str]
    fc: str
    predictor: tuple[str, str]
    towers: tuple[str, str]
    dense: tuple[str, str]
    eps: float
    stride_in_1x1: bool
    extra_from_p5: bool
    relu_before_p7: bool
    sizes_outside: bool  # anchors: all ratios of a size, then of the next
    whole: bool  # anchors have whole corners, and cells lie image // cells apart
    background: int  # output of the background; None: there is none
    dense_outputs: int
    box_outputs: int
    sampling_ratio: int
    aligned: bool


MMDET = Framework(
    stem="backbone.conv1",
    stem_norm="backbone.bn1",
    block="backbone.layer{layer}.{block}.conv{i}",
    norm="backbone.layer{layer}.{block}.bn{i}",
    shortcut="backbone.layer{layer}.{block}.downsample.0",
    shortcut_norm="backbone.layer{layer}.{block}.downsample.1",
    lateral="neck.lateral_convs.{n}.conv",
    output="neck.fpn_convs.{n}.conv",
    extra="neck.fpn_convs.{n}.conv",
    rpn=("rpn_head.rpn_conv", "rpn_head.rpn_cls", "rpn_head.rpn_reg"),
    fc="roi_head.bbox_head.shared_fcs.{n}",
    predictor=("roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"),
    towers=("bbox_head.cls_convs.{n}.conv", "bbox_head.reg_convs.{n}.conv"),
    dense=("bbox_head.retina_cls", "bbox_head.retina_reg"),
    eps=1e-5,
    stride_in_1x1=False,
    extra_from_p5=False,
    relu_before_p7=False,
    sizes_outside=False,
    whole=False,
    background=CLASSES,
    dense_outputs=CLASSES,
    box_outputs=CLASSES,
    sampling_ratio=0,
    aligned=True,
)
TORCHVISION = Framework(
    stem="backbone.body.conv1",
    stem_norm="backbone.body.bn1",
    block="backbone.body.layer{layer}.{block}.conv{i}",
    norm="backbone.body.layer{layer}.{block}.bn{i}",
    shortcut="backbone.body.layer{layer}.{block}.downsample.0",
    shortcut_norm="backbone.body.layer{layer}.{block}.downsample.1",
    lateral="backbone.fpn.inner_blocks.{n}.0",
    output="backbone.fpn.layer_blocks.{n}.0",
    extra="backbone.fpn.extra_blocks.p{level}",
    rpn=("rpn.head.conv.0.0", "rpn.head.cls_logits", "rpn.head.bbox_pred"),
    fc="roi_heads.box_head.fc{fc}",
    predictor=("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
    towers=("head.classification_head.conv.{n}.0", "head.regression_head.conv.{n}.0"),
    dense=("head.classification_head.cls_logits", "head.regression_head.bbox_reg"),
    eps=0.0,
    stride_in_1x1=False,
    extra_from_p5=True,
    relu_before_p7=True,
    sizes_outside=False,
    whole=True,
    background=0,
    dense_outputs=CLASSES + 1,
    box_outputs=CLASSES + 1,
    sampling_ratio=2,
    aligned=False,
)
DETECTRON2 = Framework(
    stem="backbone.bottom_up.stem.conv1",
    stem_norm="backbone.bottom_up.stem.conv1.norm",
    block="backbone.bottom_up.res{stage}.{block}.conv{i}",
    norm="backbone.bottom_up.res{stage}.{block}.conv{i}.norm",
    shortcut="backbone.bottom_up.res{stage}.{block}.shortcut",
    shortcut_norm="backbone.bottom_up.res{stage}.{block}.shortcut.norm",
    lateral="backbone.fpn_lateral{level}",
    output="backbone.fpn_output{level}",
    extra="backbone.top_block.p{level}",
    rpn=tuple(f"proposal_generator.rpn_head.{n}" for n in ("conv", "objectness_logits", "anchor_deltas")),
    fc="roi_heads.box_head.fc{one}",
    predictor=("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
    towers=("head.cls_subnet.{twice}", "head.bbox_subnet.{twice}"),
    dense=("head.cls_score", "head.bbox_pred"),
    eps=1e-5,
    stride_in_1x1=True,
    extra_from_p5=False,
    relu_before_p7=True,
    sizes_outside=True,
    whole=False,
    background=CLASSES,
    dense_outputs=CLASSES,
    box_outputs=CLASSES,
    sampling_ratio=0,
    aligned=True,
)
FRAMEWORKS = {"mmdetection": MMDET, "torchvision": TORCHVISION, "detectron2": DETECTRON2}
