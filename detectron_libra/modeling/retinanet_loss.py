# SPDX-License-Identifier: Apache-2.0
"""RetinaNet's two losses on the head's raw outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from detectron_libra.geometry import Geometry
from detectron_libra.modeling.class_losses import FocalLoss
from detectron_libra.modeling.matching import AnchorMatch, labelled, match_anchors_retinanet
from detectron_libra.modeling.sampling import sample_negatives
from detectron_libra.modeling.slots import (
    AnchorAssigner,
    BoxLoss,
    BoxSampler,
    DenseClassLoss,
    DenseLesson,
    DenseOutputs,
)
from detectron_libra.structures import Targets


@dataclass(frozen=True)
class NegativeChoice:
    """How many negatives a dense detector learns from, and which."""

    per_image: int
    sampler: BoxSampler


@dataclass(frozen=True)
class RetinaNetRule:
    """Which anchors learn what.

    Attributes:
        positive, negative: IoU from which an anchor is positive, and below which it is background.
        alpha, gamma: the focal loss's weight of positives, and its exponent.
        num_classes: classes without background.
        softmax: focal loss over a softmax with background.
        geometry: the box convention.
        assignment: whose rule of low-quality matches holds: "detectron" or "continuous".
        crowd_threshold: share of an anchor inside a crowd from which it is ignored; None trains it as background.
        negatives: some of the negatives of each image; None takes every one, as the focal loss is meant.
        assigner: what assigns in place of ``positive``, ``negative`` and ``assignment``; None: they do.
    """

    positive: float
    negative: float
    alpha: float
    gamma: float
    num_classes: int
    softmax: bool
    geometry: Geometry
    assignment: str
    crowd_threshold: float | None = None
    negatives: NegativeChoice | None = None
    assigner: AnchorAssigner | None = None


def focal_loss_of(rule: RetinaNetRule) -> FocalLoss:
    """The focal loss that a rule describes, without factors of classes."""
    return FocalLoss(alpha=rule.alpha, gamma=rule.gamma, num_classes=rule.num_classes, softmax=rule.softmax)


def assign_anchors(outputs: DenseOutputs, targets: Targets, rule: RetinaNetRule) -> AnchorMatch:
    """What each anchor learns, and what losses are divided by."""
    if rule.assigner is not None:
        return labelled(rule.assigner(outputs, targets), targets)
    return match_anchors_retinanet(
        outputs.all_anchors,
        targets,
        positive=rule.positive,
        negative=rule.negative,
        extent=rule.geometry.extent,
        rule=rule.assignment,
        crowd_threshold=rule.crowd_threshold,
    )


def choose_background(
    outputs: DenseOutputs, match: AnchorMatch, targets: Targets, rule: RetinaNetRule
) -> tuple[Tensor, Tensor | None]:
    """The negatives (N, M) bool that are learned from, and the weight (N, M) of all anchors that follows, or None."""
    background = match.labels == 0
    if rule.negatives is None:
        return background, None
    high = rule.negative if rule.assigner is None else rule.assigner.highest_negative
    chosen = sample_negatives(
        match,
        rule.negatives.per_image,
        rule.negatives.sampler,
        high=high,
        targets=targets,
        logits=outputs.logits_per_anchor,
    )
    return chosen, ((match.labels > 0) | chosen).float()


def retinanet_losses(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    targets: Targets,
    *,
    rule: RetinaNetRule,
    box_loss: BoxLoss,
    class_loss: DenseClassLoss | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Class and box loss of a batch, each divided by the number of foreground anchors.

    Args:
        logits: per level (N, A*C', H, W); deltas: per level (N, A*4, H, W); anchors: per level (H*W*A, 4) pixels.
        targets: ground truth in pixels of the resized images.
        class_loss: of the classes; None: the focal loss of ``rule``.

    Returns:
        losses {"cls", "bbox"} and metrics {"num_fg", "num_bg"}, 0-d float32.

    Source: Detectron's modeling/retinanet_heads.py and roi_data/retinanet.py.
    """
    outputs = DenseOutputs(logits, deltas, anchors)
    match = assign_anchors(outputs, targets, rule)
    normalizer = match.foreground.clamp(min=1).float()
    background, weight = choose_background(outputs, match, targets, rule)
    cls = (class_loss or focal_loss_of(rule))(DenseLesson(outputs, targets, match, weight, normalizer))
    positive = match.labels > 0
    bbox = box_loss.on_matches(
        deltas,
        outputs.all_anchors,
        targets.boxes,
        positive=positive,
        index=match.index,
        extent=rule.geometry.extent,
        normalizer=normalizer,
    )
    counts = {"num_fg": positive.sum().float(), "num_bg": background.sum().float()}
    return {"cls": cls, "bbox": bbox}, counts
