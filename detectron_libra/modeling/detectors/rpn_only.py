# SPDX-License-Identifier: Apache-2.0
"""A region proposal network on its own: boxes that may hold an object of any class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.modeling.box_coding import clip_to_size
from detectron_libra.modeling.detectors.proposing import ProposingTrunk
from detectron_libra.structures import Batch, Detections

OBJECT = 1  # the only class there is


class RPNOnly(ProposingTrunk):
    """Proposals are what it reports: detections of class 1, scored by objectness."""

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]] | list[Detections]:
        """Raw losses and metrics in training, proposals of each image otherwise, in pixels of the original."""
        levels = self.features(batch)
        if self.training:
            return self.losses(levels, batch)
        proposed = self.score_anchors(levels)
        proposals = self.choose_proposals(proposed, batch)
        # At test time Detectron's proposals reach into the padding, and who reads them cuts them at the image
        inside = clip_to_size(proposals.boxes, batch.sizes, extent=self.test_proposals.geometry.extent)
        found = []
        for boxes, scores, valid, meta in zip(
            inside, proposals.scores, proposals.valid, batch.metas, strict=True
        ):
            scores = scores[valid]
            classes = torch.full_like(scores, OBJECT, dtype=torch.int64)
            found.append(Detections(boxes[valid] / meta.scale, scores, classes))
        return found

    def losses(self, levels: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw losses and metrics on the features of a training batch."""
        return self.proposal_losses(self.score_anchors(levels), batch)
