# SPDX-License-Identifier: Apache-2.0
"""What a benchmark measures, as data: a case names a size and builds the tensors when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: A contender: takes the inputs of its problem, gives a tensor or several.
Run = Callable[..., Tensor | Sequence[Tensor]]


@dataclass(frozen=True)
class Setup:
    """What the user asked for.

    Attributes:
        device: "cpu" or "cuda".
        full: every size, layout and dtype instead of a selection.
        quick: tiny sizes, for tests of the tool.
    """

    device: str = "cpu"
    full: bool = False
    quick: bool = False


@dataclass
class Problem:
    """Tensors of one case and what computes them.

    Attributes:
        inputs: arguments of every contender; a gradient is taken for those that require one.
        ours: the public function of the operator.
        eager: the usual formulation in plain PyTorch.
        bytes_fwd: bytes that the forward pass has to move: each input read once, each output written once.
        bytes_fwdbwd: the same for both passes; 0 where there is no gradient.
        peer: a compiled kernel of somebody else's, or None.
        peer_name: its package and version.
        expected: what `ours` must equal; None: `ours` by the operator's reference.
        compiles: whether torch.compile of `eager` is tried.
        flops_fwd, flops_fwdbwd: arithmetic that cannot be avoided, a multiply-add as two; 0 where memory is
            the bound. Exponentials and logarithms count as nothing: the floor is lower than can be reached.
        rtol, atol: largest difference to `expected`.
        mismatch: share of the elements of integer and bool outputs that may differ.
    """

    inputs: list[Tensor]
    ours: Run
    eager: Run
    bytes_fwd: int
    bytes_fwdbwd: int = 0
    peer: Run | None = None
    peer_name: str | None = None
    expected: Run | None = None
    compiles: bool = True
    flops_fwd: int = 0
    flops_fwdbwd: int = 0
    rtol: float = 1e-4
    atol: float = 1e-5
    mismatch: float = 0.0

    @property
    def leaves(self) -> list[Tensor]:
        """The inputs whose gradient is taken."""
        return [t for t in self.inputs if t.requires_grad]

    @property
    def passes(self) -> tuple[str, ...]:
        """Which passes are measured."""
        return ("fwd", "fwdbwd") if self.leaves else ("fwd",)


@dataclass(frozen=True)
class Case:
    """One line of the plan: cheap until `build` is called.

    Attributes:
        op: the operator's folder.
        name: begins with the size, such as 800x1344_b2, 512 or 200000.
        layout: "contiguous", "channels_last", or "-" where there is no such choice.
        dtype: name of torch's dtype of the features, such as float32.
        build: makes the problem.
    """

    op: str
    name: str
    layout: str
    dtype: str
    build: Callable[[], Problem]

    @property
    def title(self) -> str:
        """One line for messages."""
        return f"{self.op} {self.name} {self.layout} {self.dtype}"


def size_in_bytes(*tensors: Tensor) -> int:
    """Bytes of all the elements."""
    return sum(t.numel() * t.element_size() for t in tensors)


def generator(setup: Setup, seed: int = 0) -> torch.Generator:
    """Where random inputs come from: the same numbers in every run on a device."""
    return torch.Generator(setup.device).manual_seed(seed)
