# SPDX-License-Identifier: Apache-2.0
"""The region proposal network's head: one 3x3 convolution, then objectness and box deltas per anchor."""

from collections.abc import Sequence

from torch import Tensor, nn

from detectron_libra.modeling.convolution import Conv2d
from detectron_libra.modeling.init import normal_

HEAD_STD = 0.01  # Detectron's rpn_heads.py


class RPNHead(nn.Module):
    """Objectness and box deltas for every anchor, shared by all levels.

    Args:
        channels: channels of the pyramid.
        num_anchors: A, anchors per cell.

    Source: Ren et al., Faster R-CNN; Detectron's modeling/rpn_heads.py and FPN.py.
    """

    def __init__(self, *, channels: int, num_anchors: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)
        self.objectness = Conv2d(channels, num_anchors, 1)
        self.deltas = Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            normal_(layer, HEAD_STD)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level the objectness logits (N, A, H, W) and box deltas (N, A*4, H, W)."""
        hidden = self.conv(levels, relu=True)
        return [self.objectness(h) for h in hidden], [self.deltas(h) for h in hidden]
