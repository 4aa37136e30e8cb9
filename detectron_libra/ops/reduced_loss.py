# SPDX-License-Identifier: Apache-2.0
"""Losses whose kernel adds them up and writes their gradient in the same pass over the input.

That is all the memory traffic there has to be: each input read once, each gradient written once. In the backward
pass the gradient only has to be multiplied by the one that arrives, which is 1 in a training without loss weights.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detectron_libra.ops.scale_gradient import scale_gradient_

#: (inputs, with_gradient) -> the 0-d sum and, with_gradient, a gradient for each input.
Kernel = Callable[[Sequence[Tensor], bool], tuple[Tensor, Sequence[Tensor]]]


class _ReducedLoss(torch.autograd.Function):
    """The path of eager mode: the buffer written in the forward pass is scaled in place and handed on."""

    @staticmethod
    def forward(ctx, kernel, *inputs):
        # Below the autograd rules of the operators, which are for torch.compile: they cost as much as the rest.
        with torch._C._AutoDispatchBelowAutograd():
            total, ctx.gradients = kernel(inputs, True)
        ctx.kernel = kernel
        ctx.save_for_backward(*inputs)
        return total

    @staticmethod
    def backward(ctx, grad):
        inputs = ctx.saved_tensors
        # The buffer belongs to the first backward pass; a second one (retain_graph) computes it anew.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = ctx.kernel(inputs, True)[1]
        if not _is_one(grad):
            scale_gradient_(gradients, grad)
        if torch.is_grad_enabled():  # create_graph
            gradients = [_Once.apply(g, x) for g, x in zip(gradients, inputs, strict=True)]
        return None, *gradients


def _is_one(grad: Tensor) -> bool:
    """Whether there is nothing to scale, where asking makes nobody wait: a fifth of a short call's time."""
    return type(grad) is Tensor and grad.is_cpu and grad.item() == 1


class _Once(torch.autograd.Function):
    """The gradient as it is, and an error for who asks for its derivative: a constant would be wrong."""

    @staticmethod
    def forward(ctx, gradient, x):
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError("a loss of detectron_libra has no second derivative")


def reduced_loss(kernel: Kernel, inputs: Sequence[Tensor]) -> Tensor:
    """The sum that ``kernel`` computes of ``inputs``, differentiable once with respect to each of them.

    Under torch.compile the kernel is called as it is: the operators in it have rules of their own there
    (`register_reduced_loss`).
    """
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    if torch.compiler.is_compiling():
        return kernel(inputs, wanted)[0]
    if wanted:
        return _ReducedLoss.apply(kernel, *inputs)
    with torch._C._AutoDispatchBelowAutograd():
        return kernel(inputs, False)[0]


def register_reduced_loss(name: str, inputs: int, with_gradient: int) -> None:
    """Gives an operator (..., with_gradient) -> (sum, gradient or list of gradients) its autograd rule.

    Args:
        name: of the operator, without the namespace.
        inputs: position of the differentiable argument, a tensor or a list of tensors.
        with_gradient: position of the flag. A backward pass after a forward pass without it is an error.
    """

    position = inputs

    def setup(ctx, inputs, output):
        ctx.count, ctx.is_list = len(inputs), isinstance(output[1], (list, tuple))
        gradients = output[1] if ctx.is_list else [output[1]]
        ctx.has_gradient = inputs[with_gradient]
        ctx.save_for_backward(*gradients)

    def backward(ctx, grad, _):
        if not ctx.has_gradient:
            raise RuntimeError(f"{name} was called without with_gradient, and has no gradient to give")
        gradients = [gradient * grad.to(gradient.dtype) for gradient in ctx.saved_tensors]
        out: list = [None] * ctx.count
        out[position] = gradients if ctx.is_list else gradients[0]
        return tuple(out)

    torch.library.register_autograd(f"detectron_libra::{name}", backward, setup_context=setup)
