# SPDX-License-Identifier: Apache-2.0
"""The kernels of balanced_l1 as torch sees them: shapes, gradients, autocast. Imported only where built."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.ops.reduced_loss import reduced_loss, register_reduced_loss

FORMS = {"paper": 0, "released": 1, "smooth_l1": 2}

values = torch.ops.detectron_libra.balanced_l1.default
_sum = torch.ops.detectron_libra.balanced_l1_sum.default
_backward = torch.ops.detectron_libra.balanced_l1_backward.default
_on_levels = torch.ops.detectron_libra.balanced_l1_on_levels.default


def total(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    normalizer: Tensor | None,
    scale: float,
    form: int,
    alpha: float,
    gamma: float,
    beta: float,
) -> Tensor:
    """Weighted sum times scale / normalizer, 0-d; differentiable for pred, target and weight."""
    numbers = (form, alpha, gamma, beta)
    learners = [t for t in (target, weight) if t is not None and t.requires_grad]
    if learners:
        return _total_of_learners(pred, target, weight, normalizer, scale, numbers, learners)

    def run(inputs, with_gradient):
        value, gradient = _sum(inputs[0], target, weight, normalizer, scale, *numbers, with_gradient)
        return value, (gradient,)

    return reduced_loss(run, (pred,))


def _total_of_learners(pred, target, weight, normalizer, scale, numbers, learners):
    """The same where target or weight learn too, which no detector asks for: right, not fast."""
    if torch.compiler.is_compiling():
        # The operator's own rule knows pred alone.
        terms = values(pred, target, weight, *numbers).to(torch.promote_types(pred.dtype, torch.float32))
        return terms.sum() * scale / (1 if normalizer is None else normalizer)

    def run(inputs, with_gradient):
        value, gradient = _sum(inputs[0], target, weight, normalizer, scale, *numbers, with_gradient)
        if not with_gradient:
            return value, (gradient,)
        gradients = [gradient]
        if target.requires_grad:
            gradients.append(gradient.neg())
        if weight is not None and weight.requires_grad:
            factor = scale if normalizer is None else scale / normalizer
            gradients.append(values(inputs[0], target, None, *numbers) * factor)
        return value, gradients

    return reduced_loss(run, (pred, *learners))


def total_on_levels(deltas: Sequence[Tensor], *arguments) -> Tensor:
    """The operator balanced_l1_on_levels, 0-d; differentiable for the deltas."""
    return reduced_loss(lambda levels, with_gradient: _on_levels(levels, *arguments, with_gradient), deltas)


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


@torch.library.register_fake("detectron_libra::balanced_l1_backward")
def _(grad, pred, target, weight, form, alpha, gamma, beta):
    return _like_kernel_output(pred)


@torch.library.register_fake("detectron_libra::balanced_l1_sum")
def _(pred, target, weight, normalizer, scale, form, alpha, gamma, beta, with_gradient):
    _check_same_shape(pred, target)
    value = pred.new_empty((), dtype=torch.float64 if pred.dtype == torch.float64 else torch.float32)
    return value, _like_kernel_output(pred) if with_gradient else pred.new_empty(0)


@torch.library.register_fake("detectron_libra::balanced_l1_on_levels")
def _(deltas, *arguments):
    dtype = torch.float64 if deltas[0].dtype == torch.float64 else torch.float32
    return deltas[0].new_empty((), dtype=dtype), [_like_kernel_output(d) for d in deltas if arguments[-1]]


def _setup_context(ctx, inputs, output):
    pred, target, weight, *ctx.numbers = inputs
    ctx.save_for_backward(pred, target, weight)


def _gradients(ctx, grad):
    pred, target, weight = ctx.saved_tensors
    needs_pred, needs_target, needs_weight = ctx.needs_input_grad[:3]
    grad_pred = _backward(grad, pred, target, weight, *ctx.numbers) if needs_pred or needs_target else None
    grad_target = -grad_pred if grad_pred is not None and needs_target else None
    grad_weight = grad * values(pred, target, None, *ctx.numbers) if needs_weight else None
    return grad_pred if needs_pred else None, grad_target, grad_weight, None, None, None, None


def _refuse_second_derivative(ctx, *grads):
    raise NotImplementedError("balanced_l1 has no second derivative")


torch.library.register_autograd("detectron_libra::balanced_l1", _gradients, setup_context=_setup_context)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("detectron_libra::balanced_l1", _device, torch.float32)
# An operator without a rule would let a second derivative through as if it were zero.
torch.library.register_autograd("detectron_libra::balanced_l1_backward", _refuse_second_derivative)
register_reduced_loss("balanced_l1_sum", inputs=0, with_gradient=9)
register_reduced_loss("balanced_l1_on_levels", inputs=0, with_gradient=13)
