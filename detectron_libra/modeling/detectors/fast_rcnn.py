# SPDX-License-Identifier: Apache-2.0
"""Fast R-CNN: a classifier of boxes that were proposed beforehand and come with the images."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from detectron_libra.modeling.detectors.regions import RegionHead
from detectron_libra.modeling.detectors.trunk import Trunk
from detectron_libra.modeling.suppression import Candidates, DetectionRule, best_detections
from detectron_libra.structures import Batch, Detections


class FastRCNN(Trunk):
    """The second stage alone.

    Args:
        regions: the second stage.
        trunk: arguments of ``Trunk``.
    """

    def __init__(self, *, regions: RegionHead, **trunk: Any):
        super().__init__(**trunk)
        self.regions = regions

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]] | list[Detections]:
        """Raw losses and metrics in training, detections of each image otherwise; the batch has proposals."""
        if not self.training:
            return [best_detections(found, self.detection) for found in self.candidates(batch)]
        return self.losses(self.features(batch), batch)

    def losses(self, levels: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw losses and metrics on the features of a training batch."""
        assert batch.proposals is not None, "a batch of Fast R-CNN has proposals"
        assert batch.targets is not None, "a training batch has targets"
        return self.regions.losses(levels, batch.proposals, batch.targets, batch.scales)

    @property
    def detection(self) -> DetectionRule:
        """What is reported."""
        return self.regions.detection

    def candidates(self, batch: Batch, *, every: bool = False) -> list[Candidates]:
        """What may be a detection of each image, before suppression.

        Args:
            every: low scores too, in rows that depend on the proposals alone: views of an image can be averaged.
        """
        assert batch.proposals is not None, "a batch of Fast R-CNN has proposals"
        return self.regions.candidates(self.features(batch), batch.proposals, batch, every=every)
