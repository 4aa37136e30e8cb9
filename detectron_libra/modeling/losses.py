# SPDX-License-Identifier: Apache-2.0
"""Box regression losses as modules; the mathematics is in ``ops.balanced_l1``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectron_libra.modeling.box_coding import encode
from detectron_libra.ops.balanced_l1 import balanced_l1, balanced_l1_on_matches, smooth_l1


class EncodedBoxLoss(nn.Module):
    """What losses that compare deltas have in common."""

    def on_regions(
        self,
        deltas: Tensor,
        regions: Tensor,
        matched: Tensor,
        *,
        learns: Tensor,
        box_weights: Sequence[float],
        extent: float,
        normalizer: Tensor | float,
    ) -> Tensor:
        """Sum over the regions that learn a box, divided by ``normalizer``.

        Args:
            deltas: (R, 4) of each region's class; regions, matched: (R, 4) pixels; learns: (R,) bool.
            box_weights: factors of the encoded deltas.
            extent: pixels added to x2 - x1 to get a width.
        """
        boxes = torch.where(learns[:, None], matched, regions)
        target = encode(regions, boxes, weights=box_weights, extent=extent)
        mask = learns[:, None].expand_as(deltas).to(deltas.dtype)
        return self(deltas, target, weight=mask, reduction="mean", normalizer=normalizer)


class BalancedL1Loss(EncodedBoxLoss):
    """Balanced L1 loss: its gradient grows as a logarithm for inliers and is capped at ``gamma`` for outliers.

    Args:
        alpha: how much the gradient of inliers is raised; smaller raises it more.
        gamma: gradient of outliers.
        beta: residual where inliers end, in units of the encoded boxes.
        form: "paper" (continuous gradient for any beta) or "released" (the published code).

    Source: Pang et al., Libra R-CNN, CVPR 2019, equations 7 to 9.
    """

    def __init__(self, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0, form: str = "paper"):
        super().__init__()
        self.alpha, self.gamma, self.beta, self.form = alpha, gamma, beta, form

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """Loss of encoded boxes (..., 4); ``mean`` divides the weighted sum by ``normalizer`` or the element count."""
        return balanced_l1(
            pred,
            target,
            alpha=self.alpha,
            gamma=self.gamma,
            beta=self.beta,
            form=self.form,
            weight=weight,
            reduction=reduction,
            normalizer=normalizer,
        )

    def on_matches(
        self,
        deltas: Sequence[Tensor],
        anchors: Tensor,
        boxes: Tensor,
        *,
        positive: Tensor,
        index: Tensor,
        extent: float,
        normalizer: Tensor | float,
    ) -> Tensor:
        """Sum over the positive anchors of a head's raw outputs; arguments as for `balanced_l1_on_matches`."""
        return balanced_l1_on_matches(
            deltas,
            anchors,
            boxes,
            positive=positive,
            index=index,
            extent=extent,
            normalizer=normalizer,
            alpha=self.alpha,
            gamma=self.gamma,
            beta=self.beta,
            form=self.form,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, beta={self.beta}, form={self.form}"


class SmoothL1Loss(EncodedBoxLoss):
    """Smooth L1 loss, Detectron's box regression loss: quadratic below ``beta``, gradient 1 above.

    Source: Girshick, Fast R-CNN, equation 3; the beta of Detectron's smooth_l1_loss_op.
    """

    def __init__(self, *, beta: float):
        super().__init__()
        self.beta = beta

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        """Loss of encoded boxes (..., 4); ``mean`` divides the weighted sum by ``normalizer`` or the element count."""
        return smooth_l1(
            pred, target, beta=self.beta, weight=weight, reduction=reduction, normalizer=normalizer
        )

    def on_matches(
        self,
        deltas: Sequence[Tensor],
        anchors: Tensor,
        boxes: Tensor,
        *,
        positive: Tensor,
        index: Tensor,
        extent: float,
        normalizer: Tensor | float,
    ) -> Tensor:
        """Sum over the positive anchors of a head's raw outputs; arguments as for `balanced_l1_on_matches`."""
        return balanced_l1_on_matches(
            deltas,
            anchors,
            boxes,
            positive=positive,
            index=index,
            extent=extent,
            normalizer=normalizer,
            beta=self.beta,
            form="smooth_l1",
        )

    def extra_repr(self) -> str:
        return f"beta={self.beta}"
