# SPDX-License-Identifier: Apache-2.0
"""Focal loss in plain PyTorch, read from the head's output through views: no copy into another order."""

from collections.abc import Sequence

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
    """Loss per logit (N, H, W, A, C'), of independent classes: logits (N, H, W, A, C'), labels (N, H, W, A)."""
    positive = labels[..., None] == torch.arange(1, logits.shape[-1] + 1, device=logits.device)
    # Turned so that a large value is a mistake for either kind: p^gamma * -log(1 - p), p = sigmoid(mistake).
    mistake = torch.where(positive, -logits, logits)
    share = torch.where(positive, logits.new_full((), alpha), 1 - alpha)
    # A power of p through its logarithm: finite gradients for any gamma.
    return share * (gamma * F.logsigmoid(mistake)).exp() * -F.logsigmoid(-mistake)


def softmax_terms(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Loss per anchor (N, H, W, A), of exclusive classes, background first: logits (N, H, W, A, C'+1)."""
    log_p = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    share = torch.where(labels > 0, logits.new_full((), alpha), 1 - alpha)
    return share * (-torch.expm1(log_p)).clamp(min=SMALLEST_MISS) ** gamma * -log_p


def level_sum(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    *,
    alpha: float,
    gamma: float,
    num_classes: int,
    softmax: bool,
) -> Tensor:
    """Sum over one level (N, A*V, H, W), whose labels and weight are (N, H*W*A)."""
    split = split_anchors(logits, num_classes + softmax)
    label_map = to_map(labels, split.shape[:4], "labels").long()
    factor = (label_map >= 0).to(split.dtype)
    if weight is not None:
        factor = torch.where(label_map >= 0, to_map(weight, split.shape[:4], "weight").to(split.dtype), 0)
    # What is left out may hold anything: it must not reach a formula, whose gradient could be NaN.
    split = split.masked_fill((factor == 0)[..., None], 0)
    if softmax:
        terms = softmax_terms(split, label_map, alpha, gamma)
        if class_weight is not None:
            padded = torch.cat([class_weight.new_ones(1), class_weight]).to(split.dtype)
            terms = terms * padded[label_map.clamp(min=0)]
        return (terms * factor).sum()
    terms = sigmoid_terms(split, label_map, alpha, gamma)
    if class_weight is not None:
        terms = terms * class_weight.to(split.dtype)
    return (terms.sum(-1) * factor).sum()


def focal_loss_reference(
    logits: Sequence[Tensor],
    labels: Tensor,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    **options,
) -> Tensor:
    """Sum over all levels; arguments as for `detectron_libra.ops.focal_loss.focal_loss`."""
    total = logits[0].new_zeros((), dtype=torch.promote_types(logits[0].dtype, torch.float32))
    start = 0
    for level in logits:
        span = slice(
            start, start + level.shape[1] // anchor_values(options) * level.shape[2] * level.shape[3]
        )
        start = span.stop
        part = None if weight is None else weight[:, span]
        total = total + level_sum(level, labels[:, span], part, class_weight, **options)
    return total


def anchor_values(options) -> int:
    """Logits of one anchor."""
    return options["num_classes"] + options["softmax"]
