# SPDX-License-Identifier: Apache-2.0
"""Balanced L1 on a head's raw outputs in plain PyTorch: the definition that the kernels must match."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.balanced_l1.reference import balanced_l1_reference

#: Sides below this many pixels count as this long, so that padding rows encode to finite numbers.
SMALLEST_SIDE_PX = 1e-4


def centre_and_size(boxes: Tensor, extent: float) -> tuple[Tensor, Tensor]:
    """Centres and sides (..., 2) of boxes (..., 4): the centre is x1 + width / 2, ``extent`` included."""
    size = boxes[..., 2:] - boxes[..., :2] + extent
    return boxes[..., :2] + 0.5 * size, size


def encode_reference(boxes: Tensor, targets: Tensor, extent: float) -> Tensor:
    """(dx, dy, dw, dh) that turn ``boxes`` into ``targets``, in their dtype.

    boxes, targets: (..., 4) pixels, broadcast against each other; ``extent`` is added to x2 - x1.
    Source: Detectron's utils/boxes.py (extent 1); mmdetection's DeltaXYWHBBoxCoder (0).
    """
    centre, size = centre_and_size(boxes, extent)
    target_centre, target_size = centre_and_size(targets, extent)
    size, target_size = size.clamp(min=SMALLEST_SIDE_PX), target_size.clamp(min=SMALLEST_SIDE_PX)
    return torch.cat(((target_centre - centre) / size, (target_size / size).log()), -1)


def on_levels_reference(
    deltas: Sequence[Tensor],
    anchors: Tensor,
    boxes: Tensor,
    chosen: tuple[Tensor | None, Tensor | None, Tensor | None],
    extent: float,
    form: str,
    numbers: tuple[float, float, float],
) -> Tensor:
    """The undivided sum that the two functions of `on_levels` divide.

    chosen: locations, positive and index, either the first or the others None. numbers: alpha, gamma, beta.
    Returns: 0-d float64 for float64 deltas, otherwise float32.
    """
    locations, positive, index = chosen
    dtype = torch.float64 if deltas[0].dtype == torch.float64 else torch.float32
    images = deltas[0].shape[0]
    cells = [d.shape[1] * d.shape[2] * d.shape[3] // 4 for d in deltas]
    levels = [d.permute(0, 2, 3, 1).reshape(images, m, 4) for d, m in zip(deltas, cells, strict=True)]
    rows = torch.cat(levels, dim=1).to(dtype)
    if locations is not None:
        used = (locations >= 0) & (locations < rows.shape[0] * rows.shape[1])
        place = locations.where(used, torch.zeros_like(locations))
        if rows.numel() == 0:
            return rows.sum()
        pred, base = rows.flatten(0, 1)[place], anchors[place % len(anchors)]
    else:
        assert positive is not None and index is not None
        used = positive & (index >= 0) & (index < boxes.shape[1])
        row = index.where(used, torch.zeros_like(index))[..., None].expand(-1, -1, 4)
        boxes = boxes.gather(1, row) if boxes.shape[1] else boxes.new_zeros(row.shape)
        pred, base = rows, anchors.expand(images, -1, -1)
    # An unused row learns itself, with weight 0: encoding stays finite.
    target = encode_reference(base.to(dtype), boxes.where(used[..., None], base).to(dtype), extent)
    weight = used[..., None].expand_as(pred).to(dtype)
    alpha, gamma, beta = numbers
    return balanced_l1_reference(pred, target, weight, form=form, alpha=alpha, gamma=gamma, beta=beta).sum()
