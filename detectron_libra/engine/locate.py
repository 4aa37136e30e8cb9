# SPDX-License-Identifier: Apache-2.0
"""Where numbers stop being finite: the first module of a forward pass, the first parameter of a backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Finding:
    """What was seen, in the order in which it was computed; None where everything was finite.

    Attributes:
        weights: names of parameters and buffers that were not finite before anything ran.
        module: first module with an output that is not finite; the empty name is the model itself.
        inputs_finite: whether its inputs were.
        gradient: first parameter whose gradient is not finite.
    """

    weights: list[str] = field(default_factory=list)
    module: str | None = None
    inputs_finite: bool = True
    gradient: str | None = None


@contextmanager
def watched(model: nn.Module) -> Iterator[Finding]:
    """Watches the model while the block runs it forward and backward."""
    found = Finding([name for name, value in model.state_dict().items() if not is_finite(value)])

    def after(name: str, inputs: Any, output: Any) -> None:
        if found.module is None and not is_finite(output):
            found.module, found.inputs_finite = name, is_finite(inputs)

    def accumulated(name: str, parameter: Tensor) -> None:
        if found.gradient is None and parameter.grad is not None and not is_finite(parameter.grad):
            found.gradient = name

    with ExitStack() as stack:
        for name, module in model.named_modules():
            hook = module.register_forward_hook(lambda _, i, o, name=name: after(name, i, o))
            stack.callback(hook.remove)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                handle = parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name: accumulated(name, p)
                )
                stack.callback(handle.remove)
        yield found


def is_finite(value: Any) -> bool:
    """Whether every floating-point number in nested containers and dataclasses is finite."""
    return all(bool(t.isfinite().all()) for t in _tensors(value) if t.is_floating_point())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from _tensors(getattr(value, part.name))
