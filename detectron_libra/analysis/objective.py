# SPDX-License-Identifier: Apache-2.0
"""Imbalance of objectives: how hard each part of the loss pulls at the features that all of them share, and whether
the box loss listens to its inliers.

Source: Pang et al., Libra R-CNN, arXiv:1904.02701, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron_libra.analysis.numbers import number, share
from detectron_libra.errors import RunError
from detectron_libra.ops.balanced_l1 import balanced_l1, smooth_l1

#: The paper: an inlier gives about this part of an outlier's gradient under smooth L1.
PAPER_RATIO = 0.3


class PartGradients:
    """The gradient of each part of the loss by the shared features, measured over batches.

    Args:
        weights: factor of each part in the total.
    """

    def __init__(self, weights: Mapping[str, float]):
        self.weights = dict(weights)
        self.losses = dict.fromkeys(self.weights, 0.0)
        self.norms = dict.fromkeys(self.weights, 0.0)
        self.batches = 0

    def add(self, losses: Mapping[str, Tensor], levels: Sequence[Tensor]) -> list[Tensor]:
        """Measure one batch.

        Args:
            losses: raw, 0-d, made from ``levels``, which are leaves of the graph.

        Returns:
            Gradient of the weighted total by each level.

        Raises:
            RunError: a loss is not finite.
        """
        total = [torch.zeros_like(level) for level in levels]
        for name, loss in losses.items():
            if not loss.isfinite():
                raise RunError(f"loss {name} is {loss.item()}: nothing can be measured; check the weights")
            found = torch.autograd.grad(loss, list(levels), retain_graph=True, allow_unused=True)
            gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(levels, found, strict=True)]
            self.losses[name] += loss.item()
            self.norms[name] += torch.stack([g.double().norm() for g in gradients]).norm().item()
            for level, gradient in zip(total, gradients, strict=True):
                level.add_(gradient, alpha=self.weights[name])
        self.batches += 1
        return total

    def tables(self) -> dict[str, Any]:
        """By part: mean ``loss``, ``weight``, ``gradient_norm`` of the raw and of the weighted loss, ``share``."""
        norms = {name: total / self.batches for name, total in self.norms.items()}
        pulls = {name: self.weights[name] * norm for name, norm in norms.items()}
        return {
            name: {
                "loss": number(self.losses[name] / self.batches),
                "weight": number(self.weights[name]),
                "gradient_norm": number(norm),
                "weighted_gradient_norm": number(pulls[name]),
                "share": share(pulls[name], sum(pulls.values())),
            }
            for name, norm in norms.items()
        }


def equalising_weights(parts: Mapping[str, Mapping[str, Any]], reference: str) -> dict[str, float | None]:
    """Weights with which every part pulls as hard as ``reference`` does now; None for a part without a gradient.

    Args:
        parts: from ``PartGradients.tables``.
    """
    pull = parts[reference]["weighted_gradient_norm"]
    weights = {
        name: number(pull / part["gradient_norm"]) if part["gradient_norm"] else None
        for name, part in parts.items()
    }
    return weights | {reference: parts[reference]["weight"]}


def box_gradients(
    residuals: Tensor, *, smooth_beta: float, alpha: float, gamma: float, beta: float, form: str
) -> dict[str, Any]:
    """Whose gradient the box loss is made of, under smooth L1 and under balanced L1.

    Args:
        residuals: (K, 4) float, encoded boxes minus targets.
        smooth_beta: of the smooth L1 loss; alpha, gamma, beta, form: of the balanced one.

    Returns:
        ``residuals`` (their number), ``smooth_l1`` and ``balanced_l1``, see ``split``, and the ``paper``'s ratio.
    """
    losses: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
        "smooth_l1": (
            smooth_beta,
            lambda x: smooth_l1(x, torch.zeros_like(x), beta=smooth_beta, reduction="sum"),
        ),
        "balanced_l1": (
            beta,
            lambda x: balanced_l1(
                x, torch.zeros_like(x), alpha=alpha, gamma=gamma, beta=beta, form=form, reduction="sum"
            ),
        ),
    }
    result: dict[str, Any] = {"residuals": residuals.numel(), "paper_inlier_over_outlier": PAPER_RATIO}
    for name, (limit, loss) in losses.items():
        x = residuals.detach().double().requires_grad_()
        (slope,) = torch.autograd.grad(loss(x), x)
        result[name] = {
            "beta": limit,
            **split(x.detach().abs().cpu().numpy(), slope.abs().cpu().numpy(), limit),
        }
    return result


def split(distance: np.ndarray, gradient: np.ndarray, limit: float) -> dict[str, Any]:
    """The gradients of inliers and outliers.

    Args:
        distance, gradient: (K, 4), absolute residuals and slopes of the loss there.
        limit: an inlier is nearer than this.

    Returns:
        ``inliers`` (their share of the residuals), ``inlier_gradient`` and ``outlier_gradient`` (shares of the
        gradient), and ``inlier_over_outlier``, the mean gradient of an inlier over that of an outlier.
    """
    near = distance < limit
    inlier, outlier = gradient[near], gradient[~near]
    total = float(gradient.sum())
    ratio = share(inlier.mean(), outlier.mean()) if len(inlier) and len(outlier) else None
    return {
        "inliers": share(near.sum(), near.size),
        "inlier_gradient": share(float(inlier.sum()), total),
        "outlier_gradient": share(float(outlier.sum()), total),
        "inlier_over_outlier": ratio,
    }
