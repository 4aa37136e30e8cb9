# SPDX-License-Identifier: Apache-2.0
"""Focal loss on the class head's raw output: no permutation, no concatenation over levels, no one-hot."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.focal_loss.reference import focal_loss_reference

if is_built():
    from detectron_libra.ops.focal_loss import kernels

__all__ = ["focal_loss", "focal_loss_reference"]


def focal_loss(
    logits: Tensor | Sequence[Tensor],
    labels: Tensor,
    *,
    alpha: float,
    gamma: float,
    num_classes: int,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    softmax: bool = False,
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """Focal loss of all levels, summed over images, anchors and classes.

    Args:
        logits: a level (N, A*C', H, W) or a list of them, raw output, channel a*C' + (c-1) for class c; any
            float dtype, each contiguous or channels_last. With ``softmax`` (N, A*(C'+1), H, W), channel
            a*(C'+1) + c, c = 0 the background. At most 16 levels on CUDA.
        labels: (N, M) int8, int16, int32 or int64; M anchors, level by level, each by rows, columns, anchors of
            a cell: class 1..C', 0 background, -1 ignored.
        alpha: weight of a positive; a negative weighs 1 - alpha.
        gamma: >= 0, exponent of the probability of being wrong.
        num_classes: C', classes without background.
        weight: (N, M) float32 factor per anchor, or None.
        class_weight: (C',) float32. Sigmoid: factor of a class's column, for anchors that have the class and
            for those that have not. Softmax: factor of the anchors of a class; background weighs 1.
        softmax: classes exclude each other.
        normalizer: number or 0-d tensor that the sum is divided by.

    Returns:
        0-d float32 (float64 for float64 logits); computed in float32 for half precision, added in a fixed order:
        equal bits from run to run and for any number of threads. An anchor with label -1 or weight 0 gives 0
        to value and gradient, whatever its logits hold. Differentiable once, for the logits alone.

    Raises:
        ValueError: gamma below 0, or shapes that do not fit together.
        RuntimeError: dtypes or devices that do not match, naming the argument.

    Source: Lin et al., Focal Loss, ICCV 2017; Detectron's sigmoid_focal_loss_op and softmax_focal_loss_op.
    """
    levels = [logits] if isinstance(logits, Tensor) else list(logits)
    _check(levels, labels, weight, class_weight, gamma, num_classes + softmax, num_classes)
    if use_compiled(levels[0]):
        wide = torch.promote_types(levels[0].dtype, torch.float32)
        scale, divisor = 1.0, None
        if isinstance(normalizer, Tensor):
            divisor = normalizer.detach().to(wide)
        elif normalizer is not None:
            scale = 1.0 / normalizer if normalizer else math.inf
        numbers = (alpha, gamma, num_classes, softmax)
        weight, class_weight = (None if t is None else t.detach().float() for t in (weight, class_weight))
        return kernels.total(levels, labels, weight, class_weight, divisor, scale, numbers)
    with torch.autocast(levels[0].device.type, enabled=False):
        options = {"alpha": alpha, "gamma": gamma, "num_classes": num_classes, "softmax": softmax}
        total = focal_loss_reference(levels, labels, weight, class_weight, **options)
    return total if normalizer is None else total / normalizer


def _check(levels, labels, weight, class_weight, gamma, per_anchor, num_classes):
    if not levels:
        raise ValueError("logits: no level given")
    if not gamma >= 0:
        raise ValueError(f"gamma={gamma}: must be >= 0")
    channels = levels[0].shape[1]
    if channels % per_anchor:
        raise ValueError(f"logits have {channels} channels, no multiple of one anchor's {per_anchor}")
    anchors = sum(channels // per_anchor * level.shape[2] * level.shape[3] for level in levels)
    wanted = (levels[0].shape[0], anchors)
    for name, rows, shape in (("labels", labels, wanted), ("weight", weight, wanted)):
        if rows is not None and tuple(rows.shape) != shape:
            raise ValueError(f"{name} is {tuple(rows.shape)}; logits ask for {shape}")
    if class_weight is not None and tuple(class_weight.shape) != (num_classes,):
        raise ValueError(
            f"class_weight is {tuple(class_weight.shape)}; num_classes asks for ({num_classes},)"
        )
    if labels.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise RuntimeError(f"labels must be int8, int16, int32 or int64, not {labels.dtype}")
