# SPDX-License-Identifier: Apache-2.0
"""Imbalance of features: how strong, how alike and how well taught the levels of a pyramid are, before and after
they are balanced.

Source: Pang et al., Libra R-CNN, arXiv:1904.02701, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron_libra.analysis.numbers import number, share
from detectron_libra.ops.pyramid import balance, integrate

Levels = Sequence[Tensor]


def energies(levels: Levels) -> Tensor:
    """(L,) float64, root of the mean square of each level (N, C, H_l, W_l)."""
    return torch.stack([level.detach().double().square().mean().sqrt() for level in levels])


def norms(gradients: Levels) -> Tensor:
    """(L,) float64, L2 norm of the gradient of each level."""
    return torch.stack([gradient.detach().double().norm() for gradient in gradients])


def at_one_size(levels: Levels, refine: int) -> Tensor:
    """(L, N, C, H, W): every level at the size of ``levels[refine]``, as ``ops.pyramid.integrate`` brings it there."""
    count = len(levels)
    nothing = [torch.zeros_like(level) for level in levels]
    return torch.stack(
        [
            integrate([*nothing[:k], level, *nothing[k + 1 :]], refine) * count
            for k, level in enumerate(levels)
        ]
    )


def similarities(resized: Tensor) -> Tensor:
    """(L, L) float64, cosine between levels (L, N, C, H, W) at one size, of the channels of a cell, mean over cells."""
    unit = torch.nn.functional.normalize(resized.double(), dim=2)
    return torch.einsum("anchw,bnchw->ab", unit, unit) / max(unit[0, :, 0].numel(), 1)


def contributions(resized: Tensor) -> Tensor:
    """(L,) float64, what each level gives to the mean of all: <level, mean> / (L <mean, mean>); the sum is 1."""
    resized = resized.double()
    middle = resized.mean(0)
    return torch.einsum("anchw,nchw->a", resized, middle) / (len(resized) * middle.square().sum())


class PyramidStatistics:
    """The levels of a pyramid, measured over batches.

    Args:
        levels: numbers of the levels.
        refine: position of the level at whose size they are integrated.
        balanced: the model's balanced pyramid; None where it has none: then what integrating without a refinement
            would make of the levels is measured, with the gradient that its heads send now.
    """

    def __init__(self, levels: Sequence[int], refine: int, balanced: Callable[[Levels], Levels] | None):
        self.levels, self.refine, self.in_model = tuple(levels), refine, balanced is not None
        self.balance: Callable[[Levels], Levels] = balanced or (lambda given: balance(given, refine))
        self.sums: dict[str, Tensor] = {}
        self.batches = 0

    def add(self, before: Levels, gradients: Levels) -> None:
        """Measure one batch.

        Args:
            before: levels as they come out of the pyramid; gradients: of the loss by the levels that the heads see.
        """
        given = [level.detach().requires_grad_() for level in before]
        with torch.enable_grad():
            after = self.balance(given)
        taught = torch.autograd.grad(after, given, list(gradients))
        one_size = at_one_size([level.detach() for level in given], self.refine)
        with torch.no_grad():
            found = {
                "energy_before": energies(given),
                "energy_after": energies(after),
                "gradient_after": norms(gradients),
                "gradient_before": norms(taught),
                "contribution": contributions(one_size),
                "similarity_before": similarities(one_size),
                "similarity_after": similarities(
                    at_one_size([level.detach() for level in after], self.refine)
                ),
            }
        for name, value in found.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.batches += 1

    def tables(self) -> dict[str, Any]:
        """Means over the batches: ``levels`` by name, ``similarity`` before and after, and their mean off the
        diagonal."""
        means = {name: (total / self.batches).cpu().numpy() for name, total in self.sums.items()}
        columns = ("energy_before", "energy_after", "gradient_before", "gradient_after", "contribution")
        names = [f"P{level}" for level in self.levels]
        return {
            "balanced_by": "the model" if self.in_model else "integration without refinement, tried out here",
            "integrated_at": names[self.refine],
            "levels": {
                name: {column: number(means[column][k]) for column in columns} for k, name in enumerate(names)
            },
            "gradient_shares": {
                when: [share(v, means[f"gradient_{when}"].sum()) for v in means[f"gradient_{when}"]]
                for when in ("before", "after")
            },
            "similarity": {when: as_lists(means[f"similarity_{when}"]) for when in ("before", "after")},
            "mean_similarity": {
                when: off_diagonal(means[f"similarity_{when}"]) for when in ("before", "after")
            },
        }


def as_lists(matrix: np.ndarray) -> list[list[float | None]]:
    """A matrix as plain numbers."""
    return [[number(v) for v in row] for row in matrix]


def off_diagonal(matrix: np.ndarray) -> float | None:
    """Mean of a matrix (L, L) without its diagonal."""
    count = len(matrix)
    return share(matrix.sum() - np.trace(matrix), count * (count - 1))
