# SPDX-License-Identifier: Apache-2.0
"""RetinaNet's head: two towers of 3x3 convolutions shared by all levels, and their raw outputs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron_libra.modeling.convolution import Conv2d, through
from detectron_libra.modeling.init import kaiming_normal_, normal_
from detectron_libra.modeling.norm import Groups, make_norm

PREDICTION_STD = 0.01  # Detectron's retinanet_heads.py: every weight of the head is drawn with it


def tower(
    channels_in: int, channels: int, depth: int, norm: str, groups: Groups = 32, eps: float = 1e-5
) -> nn.Sequential:
    """``depth`` times 3x3 convolution, normalisation if any, ReLU."""
    layers: list[nn.Module] = []
    for i in range(depth):
        conv = Conv2d(channels_in if i == 0 else channels, channels, 3, padding=1, bias=norm == "none")
        if norm == "none":
            normal_(conv, PREDICTION_STD)
        else:
            kaiming_normal_(conv)
        layers += [conv, make_norm(norm, channels, groups=groups, eps=eps), nn.ReLU(inplace=True)]
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))


def prediction(channels: int, outputs: int) -> Conv2d:
    """The last convolution of a tower."""
    conv = Conv2d(channels, outputs, 3, padding=1)
    normal_(conv, PREDICTION_STD)
    return conv


class RetinaNetHead(nn.Module):
    """Class scores and box deltas for every anchor.

    Args:
        channels_in: channels of the pyramid.
        channels: channels of the towers.
        num_convs: depth of each tower.
        num_anchors: A, anchors per cell.
        num_classes: classes without background.
        prior: probability of an object that the class biases start from.
        norm: "none", "group" or "batch"; statistics of "batch" are shared by all levels.
        norm_groups, norm_eps: see ``make_norm``.
        share_towers: one tower for both outputs.
        softmax: one more output per anchor, the background's, first.

    Source: Lin et al., Focal Loss for Dense Object Detection; Detectron's modeling/retinanet_heads.py.
    """

    def __init__(
        self,
        *,
        channels_in: int,
        channels: int,
        num_convs: int,
        num_anchors: int,
        num_classes: int,
        prior: float = 0.01,
        norm: str = "none",
        norm_groups: Groups = 32,
        norm_eps: float = 1e-5,
        share_towers: bool = False,
        softmax: bool = False,
    ):
        super().__init__()
        outputs = num_classes + 1 if softmax else num_classes
        self.cls_tower = tower(channels_in, channels, num_convs, norm, norm_groups, norm_eps)
        self.box_tower = None
        if not share_towers:
            self.box_tower = tower(channels_in, channels, num_convs, norm, norm_groups, norm_eps)
        self.cls_pred = prediction(channels, num_anchors * outputs)
        self.box_pred = prediction(channels, num_anchors * 4)
        with torch.no_grad():
            if softmax:
                bias = self.cls_pred.bias.view(num_anchors, outputs)
                bias[:, 0] = math.log(num_classes * (1 - prior) / prior)
            else:
                self.cls_pred.bias.fill_(-math.log((1 - prior) / prior))

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level the raw class scores (N, A*C', H, W) and box deltas (N, A*4, H, W)."""
        shared = through(self.cls_tower, levels)
        boxes = shared if self.box_tower is None else through(self.box_tower, levels)
        return self.cls_pred(shared), self.box_pred(boxes)
