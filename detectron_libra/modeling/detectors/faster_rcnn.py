# SPDX-License-Identifier: Apache-2.0
"""Faster R-CNN: region proposals, then a classifier of the sampled regions."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from detectron_libra.modeling.detectors.proposing import ProposingTrunk
from detectron_libra.modeling.detectors.regions import RegionHead
from detectron_libra.modeling.suppression import Candidates, DetectionRule, best_detections
from detectron_libra.structures import Batch, Detections


class FasterRCNN(ProposingTrunk):
    """Two-stage detector, on a pyramid or on one level (C4).

    Args:
        regions: the second stage.
        first_stage: arguments of ``ProposingTrunk``.
    """

    def __init__(self, *, regions: RegionHead, **first_stage: Any):
        super().__init__(**first_stage)
        self.regions = regions

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]] | list[Detections]:
        """Raw losses and metrics in training, detections of each image otherwise."""
        if not self.training:
            return [best_detections(found, self.detection) for found in self.candidates(batch)]
        return self.losses(self.features(batch), batch)

    def losses(self, levels: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw losses and metrics of both stages on the features of a training batch."""
        proposed = self.score_anchors(levels)
        proposals = self.choose_proposals(proposed, batch)
        first, first_metrics = self.proposal_losses(proposed, batch)
        assert batch.targets is not None, "a training batch has targets"
        second, second_metrics = self.regions.losses(levels, proposals, batch.targets, batch.scales)
        return first | second, first_metrics | second_metrics

    @property
    def detection(self) -> DetectionRule:
        """What is reported."""
        return self.regions.detection

    def candidates(self, batch: Batch) -> list[Candidates]:
        """What may be a detection of each image, before suppression."""
        levels = self.features(batch)
        proposals = self.choose_proposals(self.score_anchors(levels), batch)
        # A small image has few: of 64 x 64 pixels a fifth of the usual thousand, and each costs the whole head.
        return self.regions.candidates(levels, proposals.trimmed(), batch)
