# SPDX-License-Identifier: Apache-2.0
"""Fast R-CNN's two losses on the sampled regions."""

from collections.abc import Sequence

from torch import Tensor

from detectron_libra.modeling.class_losses import CrossEntropyLoss
from detectron_libra.modeling.slots import BoxLoss, RegionClassLoss, RegionLesson


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
    box_loss: BoxLoss,
    class_loss: RegionClassLoss | None = None,
    boxed: Tensor | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Class and box loss, both divided by the number of sampled regions of the batch.

    Args:
        logits: (R, C) with background first; deltas: (R, C, 4), or (R, 2, 4) when class-agnostic.
        regions: (R, 4) sampled boxes in pixels; matched: (R, 4) the ground truth of each.
        classes: (R,) int64, 0 for background; valid: (R,) bool, False in padding rows.
        box_weights: factors of the encoded deltas.
        class_loss: of the classes; None: cross entropy.
        boxed: (R,) bool, regions close enough to learn a box where they are positive; None: all.

    Returns:
        losses {"cls", "bbox"} and metrics {"accuracy_cls", "num_fg"}, 0-d float32.

    Source: Detectron's modeling/fast_rcnn_heads.py: softmax cross entropy, and smooth L1 over all regions.
    """
    count = valid.sum().clamp(min=1).float()
    positive = (classes > 0) & valid
    learns = positive if boxed is None else positive & boxed
    lesson = RegionLesson(logits, deltas, regions, matched, classes, valid, count)
    cls = (class_loss or CrossEntropyLoss())(lesson)
    column = classes if deltas.shape[1] == logits.shape[1] else learns.long()
    pred = deltas.gather(1, column[:, None, None].expand(-1, 1, 4)).squeeze(1)
    bbox = box_loss.on_regions(
        pred,
        regions,
        matched,
        learns=learns,
        box_weights=box_weights,
        extent=extent,
        normalizer=count,
    )
    right = ((logits.argmax(1) == classes) & valid).sum() / count
    return {"cls": cls, "bbox": bbox}, {"accuracy_cls": right, "num_fg": positive.sum().float()}
