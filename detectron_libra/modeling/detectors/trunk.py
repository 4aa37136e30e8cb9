# SPDX-License-Identifier: Apache-2.0
"""What every detector begins with: from the batch to the features that its heads see."""

from torch import Tensor, nn

from detectron_libra.structures import Batch


class Trunk(nn.Module):
    """Backbone and, where there is one, feature pyramid, balanced if asked for.

    Args:
        preprocess: ``Preprocess``.
        backbone: image to {stage: features}.
        neck: {stage: features} to the list of levels, finest first; None: the heads see the stages themselves.
        balance: list of levels to list of levels, or None.
    """

    def __init__(
        self,
        *,
        preprocess: nn.Module,
        backbone: nn.Module,
        neck: nn.Module | None,
        balance: nn.Module | None,
    ):
        super().__init__()
        self.preprocess, self.backbone, self.neck, self.balance = preprocess, backbone, neck, balance

    def features(self, batch: Batch) -> list[Tensor]:
        """The levels that the heads see, finest first: (N, C, H_l, W_l) each."""
        levels = self.unbalanced_features(batch)
        return levels if self.balance is None else list(self.balance(levels))

    def unbalanced_features(self, batch: Batch) -> list[Tensor]:
        """The same levels before they are balanced."""
        stages = self.backbone(self.preprocess(batch))
        return list(stages.values() if self.neck is None else self.neck(stages))
