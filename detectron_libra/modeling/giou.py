# SPDX-License-Identifier: Apache-2.0
"""Generalised IoU as a loss of boxes that are decoded first: all four sides of a box are learned together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron_libra.modeling.box_coding import LOG_SIZE_CLIP, decode
from detectron_libra.modeling.layout import gather_rows, per_anchor
from detectron_libra.modeling.overlap import generalised_iou


class GIoULoss(nn.Module):
    """1 - generalised IoU of the decoded box and its ground truth, one number per box in 0..2.

    The L1 losses add up four numbers per box, and this one is small where boxes nearly fit: mmdetection and detectron2
    multiply it by 2 for a dense head and by 10 for a Fast R-CNN head (LOSS.WEIGHTS.BBOX).

    Args:
        clip: largest log growth of a side, as where boxes are reported; beyond it a side has no gradient.
        clip_shrinking: the same bound holds for shrinking.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, arXiv:1902.09630, algorithm 2.
    """

    def __init__(self, *, clip: float = LOG_SIZE_CLIP, clip_shrinking: bool):
        super().__init__()
        self.clip, self.clip_shrinking = clip, clip_shrinking

    def on_matches(
        self,
        deltas: Sequence[Tensor],
        anchors: Tensor,
        boxes: Tensor,
        *,
        positive: Tensor,
        index: Tensor,
        extent: float,
        normalizer: Tensor | float,
    ) -> Tensor:
        """Sum over the positive anchors of a head's raw outputs, divided by ``normalizer``.

        Args:
            deltas: per level (N, 4A, H, W); anchors: (M, 4) pixels; boxes: (N, G, 4) pixels.
            positive: (N, M) bool; index: (N, M) int64, ground truth of a positive.
            extent: pixels added to x2 - x1 to get a width.

        Returns:
            0-d float32, float64 for float64 deltas. No value is waited for on a GPU.
        """
        rows = torch.cat([per_anchor(level, 4) for level in deltas], 1)
        if (
            rows.is_cpu
        ):  # asking which they are makes nobody wait there, and nearly all anchors are not positive
            image, anchor = positive.nonzero(as_tuple=True)
            truth = boxes[image, index[image, anchor]]
            everyone = torch.ones_like(anchor, dtype=torch.bool)
            return self._sum(rows[image, anchor], anchors[anchor], truth, everyone, extent) / normalizer
        return self._sum(rows, anchors, gather_rows(boxes, index), positive, extent) / normalizer

    def on_regions(
        self,
        deltas: Tensor,
        regions: Tensor,
        matched: Tensor,
        *,
        learns: Tensor,
        box_weights: Sequence[float],
        extent: float,
        normalizer: Tensor | float,
    ) -> Tensor:
        """Sum over the regions that learn a box, divided by ``normalizer``.

        Args:
            deltas: (R, 4) of each region's class; regions, matched: (R, 4) pixels; learns: (R,) bool.
            box_weights: factors of the encoded deltas.
            extent: pixels added to x2 - x1 to get a width.

        Returns:
            0-d float32, float64 for float64 deltas.
        """
        return self._sum(deltas, regions, matched, learns, extent, box_weights) / normalizer

    def extra_repr(self) -> str:
        return f"clip={self.clip:.4g}, clip_shrinking={self.clip_shrinking}"

    def _sum(
        self,
        deltas: Tensor,
        boxes: Tensor,
        targets: Tensor,
        learns: Tensor,
        extent: float,
        box_weights: Sequence[float] = (1, 1, 1, 1),
    ) -> Tensor:
        # What does not learn may hold anything: it must not reach a formula, whose gradient could be NaN.
        deltas = deltas.masked_fill(~learns[..., None], 0)
        found = decode(
            deltas,
            boxes,
            weights=box_weights,
            extent=extent,
            clip=self.clip,
            clip_shrinking=self.clip_shrinking,
        )
        loss = 1 - generalised_iou(found, targets.to(found.dtype), extent=extent)
        return loss.masked_fill(~learns, 0).sum()
