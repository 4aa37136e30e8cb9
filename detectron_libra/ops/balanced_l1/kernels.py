# SPDX-License-Identifier: Apache-2.0
"""The kernels of balanced_l1 as torch sees them: shapes, gradients, autocast. Imported only where built."""

import torch
from torch import Tensor

FORMS = {"paper": 0, "released": 1, "smooth_l1": 2}

values = torch.ops.detectron_libra.balanced_l1.default
total = torch.ops.detectron_libra.balanced_l1_sum.default
_backward = torch.ops.detectron_libra.balanced_l1_backward.default


def _like_kernel_output(pred: Tensor) -> Tensor:
    """Empty, in the memory order the kernels write: pred's where that is dense, otherwise contiguous."""
    channels_last = pred.dim() == 4 and pred.is_contiguous(memory_format=torch.channels_last)
    if pred.is_contiguous() or channels_last:
        return torch.empty_like(pred)
    return torch.empty_like(pred, memory_format=torch.contiguous_format)


def _check_same_shape(pred: Tensor, target: Tensor) -> None:
    torch._check(pred.shape == target.shape, lambda: "pred and target must have the same shape")


@torch.library.register_fake("detectron_libra::balanced_l1")
def _(pred, target, weight, form, alpha, gamma, beta):
    _check_same_shape(pred, target)
    return _like_kernel_output(pred)


@torch.library.register_fake("detectron_libra::balanced_l1_sum")
def _(pred, target, weight, form, alpha, gamma, beta):
    _check_same_shape(pred, target)
    return pred.new_empty((), dtype=torch.float64 if pred.dtype == torch.float64 else torch.float32)


@torch.library.register_fake("detectron_libra::balanced_l1_backward")
def _(grad, pred, target, weight, form, alpha, gamma, beta):
    return _like_kernel_output(pred)


def _setup_context(ctx, inputs, output):
    pred, target, weight, *ctx.numbers = inputs
    ctx.save_for_backward(pred, target, weight)


def _gradients(ctx, grad):
    pred, target, weight = ctx.saved_tensors
    grad = grad.to(pred.dtype)
    needs_pred, needs_target, needs_weight = ctx.needs_input_grad[:3]
    grad_pred = _backward(grad, pred, target, weight, *ctx.numbers) if needs_pred or needs_target else None
    grad_target = -grad_pred if grad_pred is not None and needs_target else None
    grad_weight = grad * values(pred, target, None, *ctx.numbers) if needs_weight else None
    return grad_pred if needs_pred else None, grad_target, grad_weight, None, None, None, None


def _refuse_second_derivative(ctx, *grads):
    raise NotImplementedError("balanced_l1 has no second derivative")


for _name in ("balanced_l1", "balanced_l1_sum"):
    torch.library.register_autograd(f"detectron_libra::{_name}", _gradients, setup_context=_setup_context)
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"detectron_libra::{_name}", _device, torch.float32)
# An operator without a rule would let a second derivative through as if it were zero.
torch.library.register_autograd("detectron_libra::balanced_l1_backward", _refuse_second_derivative)
