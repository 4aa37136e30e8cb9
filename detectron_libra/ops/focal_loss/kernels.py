# SPDX-License-Identifier: Apache-2.0
"""The kernel of focal_loss as torch sees it: shapes and gradients. Imported only where built."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.reduced_loss import reduced_loss, register_reduced_loss

_sum = torch.ops.detectron_libra.focal_loss_sum.default


def total(
    logits: Sequence[Tensor],
    labels: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    normalizer: Tensor | None,
    scale: float,
    numbers: tuple[float, float, int, bool],
) -> Tensor:
    """Weighted sum over all levels times scale / normalizer, 0-d; numbers: alpha, gamma, num_classes, softmax."""

    def run(inputs, with_gradient):
        return _sum(list(inputs), labels, weight, class_weight, normalizer, scale, *numbers, with_gradient)

    return reduced_loss(run, logits)


def _like_kernel_output(level: Tensor) -> Tensor:
    channels_last = level.is_contiguous(memory_format=torch.channels_last) and not level.is_contiguous()
    order = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty_like(level, memory_format=order)


@torch.library.register_fake("detectron_libra::focal_loss_sum")
def _(
    logits, labels, weight, class_weight, normalizer, scale, alpha, gamma, num_classes, softmax, with_gradient
):
    first = logits[0]
    value = first.new_empty((), dtype=torch.float64 if first.dtype == torch.float64 else torch.float32)
    return value, [_like_kernel_output(level) for level in logits] if with_gradient else []


register_reduced_loss("focal_loss_sum", inputs=0, with_gradient=10)
