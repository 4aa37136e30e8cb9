# SPDX-License-Identifier: Apache-2.0
"""The slots in which imbalance is treated, and what a thing that goes into one is given: the detectors know no more.

Letters: N images, M anchors of all levels or proposals of an image, R sampled regions, C classes with background. The
slot of images is ``data.image_sampling``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from detectron_libra.modeling.assignment import Assignment
from detectron_libra.modeling.layout import cat_levels
from detectron_libra.modeling.matching import AnchorMatch
from detectron_libra.structures import Targets


@dataclass(frozen=True)
class DenseOutputs:
    """What a dense head says of a batch, per level.

    Attributes:
        logits: (N, A*V, H, W) raw, V scores per anchor; deltas: (N, A*4, H, W).
        anchors: (H*W*A, 4) float32 pixels, row by row, cell by cell.
    """

    logits: Sequence[Tensor]
    deltas: Sequence[Tensor]
    anchors: Sequence[Tensor]

    @cached_property
    def all_anchors(self) -> Tensor:
        """(M, 4) of all levels."""
        return torch.cat(list(self.anchors))

    @property
    def anchors_per_cell(self) -> int:
        """A."""
        return self.deltas[0].shape[1] // 4

    def logits_per_anchor(self) -> Tensor:
        """(N, M, V) float32 of all levels."""
        return cat_levels(self.logits, self.logits[0].shape[1] // self.anchors_per_cell)


class AnchorAssigner(Protocol):
    """Slot "assigner": which anchors learn which ground truth. Called without gradients.

    Attributes:
        highest_negative: IoU that its negatives stay below; the range that IoU-balanced sampling cuts into bins.
    """

    @property
    def highest_negative(self) -> float: ...

    def __call__(
        self, outputs: DenseOutputs, targets: Targets, candidates: Tensor | None = None
    ) -> Assignment:
        """State and ground truth of every anchor; those outside ``candidates`` (N, M) bool are ignored."""
        ...


@dataclass(frozen=True)
class BoxCandidates:
    """The positives, or the negatives, that some boxes are chosen from to be learned from.

    Attributes:
        candidates: (N, M) bool, which of all boxes they are.
        iou: (N, M) float32, largest IoU of every box with a ground truth; index: (N, M) int64, that ground truth.
        low, high: the IoU from which, and below which, a box is a candidate.
        num_gt: G, rows of padded ground truth; targets: the ground truth, where it is at hand.
        logits: (N, M, C or V) raw scores of every box, for those who choose by what the detector says. A function: the
            second stage classifies every proposal for it, without gradients. None where there are none.
    """

    candidates: Tensor
    iou: Tensor
    index: Tensor
    low: float
    high: float
    num_gt: int
    targets: Targets | None = None
    logits: Callable[[], Tensor] | None = None


class BoxSampler(Protocol):
    """Slot "box sampler": which positives, or which negatives. Called without gradients; the host reads nothing."""

    def __call__(self, boxes: BoxCandidates, num: Tensor, keys: Tensor) -> Tensor:
        """(N, M) bool, ``num`` (N,) int64 of the candidates of each image, all where there are fewer.

        ``keys``: (N, M) float32, uniform random numbers in 0..1, the only ones that it uses.
        """
        ...


@dataclass(frozen=True)
class DenseLesson:
    """What a dense head is to learn from a batch.

    Attributes:
        outputs, targets: what it said, and the truth.
        match: class of each anchor, its ground truth, and its IoU.
        weight: (N, M) float32 factor per anchor, 0 for what was not sampled; None: all are learned from.
        normalizer: 0-d float32, what the sum is divided by.
    """

    outputs: DenseOutputs
    targets: Targets
    match: AnchorMatch
    weight: Tensor | None
    normalizer: Tensor


class DenseClassLoss(Protocol):
    """Slot "loss" of a RetinaNet's classes. A module: its buffers are saved with the weights of a run."""

    def __call__(self, lesson: DenseLesson) -> Tensor:
        """0-d float32."""
        ...


@dataclass(frozen=True)
class RegionLesson:
    """What the second stage is to learn from its sampled regions.

    Attributes:
        logits: (R, C) float32, background first; deltas: (R, C or 2, 4) float32.
        regions, matched: (R, 4) pixels, what was sampled and the ground truth of each.
        classes: (R,) int64, 0 for background; valid: (R,) bool, False in padding rows.
        normalizer: 0-d float32, number of regions that are no padding, at least 1.
    """

    logits: Tensor
    deltas: Tensor
    regions: Tensor
    matched: Tensor
    classes: Tensor
    valid: Tensor
    normalizer: Tensor


class RegionClassLoss(Protocol):
    """Slot "loss" of the Fast R-CNN head's classes. A module: its buffers are saved with the weights of a run."""

    def __call__(self, lesson: RegionLesson) -> Tensor:
        """0-d float32."""
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """(R, C) scores in 0..1 of logits (R, C), background first, as this loss means them; detections have them."""
        ...


class BoxLoss(Protocol):
    """Slot "loss" of the final boxes, for both detectors."""

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
        """0-d sum over the positive anchors of a dense head; arguments as for `balanced_l1_on_matches`."""
        ...

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
        """0-d sum over the regions (R, 4) that ``learns`` (R,) names; deltas (R, 4) are those of their class."""
        ...
