# SPDX-License-Identifier: Apache-2.0
"""Focal loss in plain PyTorch, read from the head's output through views: no copy into another order."""

import torch
from torch import Tensor
from torch.nn import functional as F

#: Least 1 - p that is raised to gamma: the power of 0 has no finite gradient below gamma 1.
SMALLEST_MISS = 1e-12


def split_anchors(logits: Tensor, per_anchor: int) -> Tensor:
    """(N, A*V, H, W) as a view (N, H, W, A, V), in memory order where channels_last; float32 or wider."""
    if logits.shape[1] % per_anchor:
        raise ValueError(f"logits have {logits.shape[1]} channels, no multiple of one anchor's {per_anchor}")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.permute(0, 2, 3, 1).unflatten(-1, (-1, per_anchor))


def to_map(rows: Tensor, shape: torch.Size, name: str) -> Tensor:
    """(N, H*W*A) as a view (N, H, W, A) = ``shape``."""
    wanted = (shape[0], shape[1:].numel())
    if rows.shape != wanted:
        raise ValueError(f"{name} is {tuple(rows.shape)}; logits ask for {wanted}")
    return rows.reshape(shape)


def sigmoid_terms(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Loss per anchor (N, H, W, A), of independent classes: logits (N, H, W, A, C'), labels (N, H, W, A)."""
    positive = labels[..., None] == torch.arange(1, logits.shape[-1] + 1, device=logits.device)
    # Turned so that a large value is a mistake for either kind: p^gamma * -log(1 - p), p = sigmoid(mistake).
    mistake = torch.where(positive, -logits, logits)
    share = torch.where(positive, logits.new_full((), alpha), 1 - alpha)
    # A power of p through its logarithm: finite gradients for any gamma.
    return (share * (gamma * F.logsigmoid(mistake)).exp() * -F.logsigmoid(-mistake)).sum(-1)


def softmax_terms(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Loss per anchor (N, H, W, A), of exclusive classes, background first: logits (N, H, W, A, C'+1)."""
    log_p = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    share = torch.where(labels > 0, logits.new_full((), alpha), 1 - alpha)
    return share * (-torch.expm1(log_p)).clamp(min=SMALLEST_MISS) ** gamma * -log_p


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    gamma: float,
    num_classes: int,
    weight: Tensor | None = None,
    softmax: bool = False,
) -> Tensor:
    """Focal loss of one level, summed over images, anchors and classes.

    Args:
        logits: (N, A*C', H, W) raw output, channel a*C' + (c-1) for class c; any float dtype and memory
            format. With ``softmax``, (N, A*(C'+1), H, W), channel a*(C'+1) + c, c = 0 the background.
        labels: (N, H*W*A) int64, anchors innermost: class 1..C', 0 background, -1 ignored.
        alpha: weight of a positive; a negative weighs 1 - alpha.
        gamma: exponent of the probability of being wrong.
        num_classes: C', classes without background.
        weight: (N, H*W*A) float32 factor per anchor, or None.
        softmax: classes exclude each other.

    Returns:
        0-d float32 (float64 for float64 logits); computed in float32 for half precision. No gradient reaches
        the logits of ignored anchors.

    Raises:
        ValueError: a shape that does not fit ``logits``.

    Source: Lin et al., Focal Loss, ICCV 2017; Detectron's sigmoid_focal_loss_op and softmax_focal_loss_op.
    """
    split = split_anchors(logits, num_classes + softmax)
    label_map = to_map(labels, split.shape[:4], "labels")
    terms = (softmax_terms if softmax else sigmoid_terms)(split, label_map, alpha, gamma)
    terms = torch.where(label_map >= 0, terms, 0)
    if weight is not None:
        terms = terms * to_map(weight, split.shape[:4], "weight")
    return terms.sum()
