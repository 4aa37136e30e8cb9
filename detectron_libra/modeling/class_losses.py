# SPDX-License-Identifier: Apache-2.0
"""The detectors' own classification losses as modules, with a factor per class where classes are weighted."""

from torch import Tensor, nn
from torch.nn import functional as F

from detectron_libra.modeling.slots import DenseLesson, RegionLesson
from detectron_libra.ops.focal_loss import focal_loss


class FocalLoss(nn.Module):
    """Focal loss of a RetinaNet's classes.

    Args:
        alpha: weight of positives; gamma: exponent; num_classes: without background; softmax: classes and background
            exclude each other.
        class_weight: (num_classes,) float32 factor of each class's column, for positives and negatives of it (with
            ``softmax``: of the anchors of the class); a buffer, saved with the weights. None: no such factors.

    Source: Lin et al., Focal Loss, ICCV 2017.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        alpha: float,
        gamma: float,
        num_classes: int,
        softmax: bool,
        class_weight: Tensor | None = None,
    ):
        super().__init__()
        self.alpha, self.gamma, self.num_classes, self.softmax = alpha, gamma, num_classes, softmax
        self.register_buffer("class_weight", class_weight)

    def forward(self, lesson: DenseLesson) -> Tensor:
        """0-d float32, summed over anchors and classes and divided by the lesson's normalizer."""
        return focal_loss(
            lesson.outputs.logits,
            lesson.match.labels,
            alpha=self.alpha,
            gamma=self.gamma,
            num_classes=self.num_classes,
            weight=lesson.weight,
            class_weight=self.class_weight,
            softmax=self.softmax,
            normalizer=lesson.normalizer,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, softmax={self.softmax}"


class CrossEntropyLoss(nn.Module):
    """Cross entropy of the Fast R-CNN head's classes.

    Args:
        class_weight: (C - 1,) float32 factor of the regions of each class; background weighs 1. A buffer, saved with
            the weights. None: no such factors.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2.3.
    """

    class_weight: Tensor | None

    def __init__(self, *, class_weight: Tensor | None = None):
        super().__init__()
        self.register_buffer("class_weight", class_weight)

    def forward(self, lesson: RegionLesson) -> Tensor:
        """0-d float32: the sum over the regions divided by their number, not by the sum of their weights."""
        weight = None
        if self.class_weight is not None:
            weight = F.pad(self.class_weight, (1, 0), value=1.0)
        each = F.cross_entropy(lesson.logits, lesson.classes, weight=weight, reduction="none")
        return (each * lesson.valid).sum() / lesson.normalizer

    def probabilities(self, logits: Tensor) -> Tensor:
        """(R, C): the softmax of logits (R, C)."""
        return logits.softmax(-1)
