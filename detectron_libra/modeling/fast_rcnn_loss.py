# SPDX-License-Identifier: Apache-2.0
"""Fast R-CNN's two losses on the sampled regions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron_libra.modeling.box_coding import encode


def fast_rcnn_losses(
    logits: Tensor,
    deltas: Tensor,
    regions: Tensor,
    matched: Tensor,
    classes: Tensor,
    valid: Tensor,
    *,
    box_weights: Sequence[float],
    extent: float,
    box_loss: nn.Module,
    boxed: Tensor | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Class and box loss, both divided by the number of sampled regions of the batch.

    Args:
        logits: (R, C) with background first; deltas: (R, C, 4), or (R, 2, 4) when class-agnostic.
        regions: (R, 4) sampled boxes in pixels; matched: (R, 4) the ground truth of each.
        classes: (R,) int64, 0 for background; valid: (R,) bool, False in padding rows.
        box_weights: factors of the encoded deltas.
        boxed: (R,) bool, regions close enough to learn a box where they are positive; None: all.

    Returns:
        losses {"cls", "bbox"} and metrics {"accuracy_cls", "num_fg"}, 0-d float32.

    Source: Detectron's modeling/fast_rcnn_heads.py: softmax cross entropy, and smooth L1 over all regions.
    """
    count = valid.sum().clamp(min=1).float()
    positive = (classes > 0) & valid
    learns = positive if boxed is None else positive & boxed
    cls = (F.cross_entropy(logits, classes, reduction="none") * valid).sum() / count
    column = classes if deltas.shape[1] == logits.shape[1] else learns.long()
    pred = deltas.gather(1, column[:, None, None].expand(-1, 1, 4)).squeeze(1)
    target = encode(
        regions, torch.where(learns[:, None], matched, regions), weights=box_weights, extent=extent
    )
    mask = learns[:, None].expand_as(pred).to(pred.dtype)
    bbox = box_loss(pred, target, weight=mask, reduction="mean", normalizer=count)
    right = ((logits.argmax(1) == classes) & valid).sum() / count
    return {"cls": cls, "bbox": bbox}, {"accuracy_cls": right, "num_fg": positive.sum().float()}
