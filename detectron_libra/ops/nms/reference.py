# SPDX-License-Identifier: Apache-2.0
"""Greedy non-maximum suppression in plain PyTorch: the definition that the kernels must match."""

import torch
from torch import Tensor


def nms_in_order_reference(
    boxes: Tensor, groups: Tensor, order: Tensor, threshold: float, extent: float, inclusive: bool
) -> Tensor:
    """Keep mask (K,) bool of boxes (K, 4), visited in the order given; O(K) memory, a pass per kept box.

    groups: (K,) int64. order: (K,) int64, a permutation in which every group's boxes come by falling score.
    A box is dropped when its IoU with a kept box of its group is above the threshold (or equal: inclusive).
    """
    x1, y1, x2, y2 = boxes[order].unbind(1)
    group = groups[order]
    area = (x2 - x1 + extent) * (y2 - y1 + extent)
    kept = torch.ones_like(group, dtype=torch.bool)
    # The comparison happens in the boxes' precision, as in the kernels.
    limit = torch.tensor(threshold, dtype=boxes.dtype, device=boxes.device)
    for i in range(len(kept)):
        if not kept[i]:
            continue
        rest = slice(i + 1, None)
        width = torch.minimum(x2[i], x2[rest]) - torch.maximum(x1[i], x1[rest]) + extent
        height = torch.minimum(y2[i], y2[rest]) - torch.maximum(y1[i], y1[rest]) + extent
        overlap = torch.where((width > 0) & (height > 0), width * height, torch.zeros_like(width))
        iou = overlap / (area[i] + area[rest] - overlap)
        too_close = iou >= limit if inclusive else iou > limit
        kept[rest] &= ~(too_close & (group[rest] == group[i]))
    keep = torch.empty_like(kept)
    keep[order] = kept
    return keep
