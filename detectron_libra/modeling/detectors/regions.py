# SPDX-License-Identifier: Apache-2.0
"""The second stage of an R-CNN: candidate boxes are cut out of the features, classified and refined."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from detectron_libra.modeling.fast_rcnn_loss import fast_rcnn_losses
from detectron_libra.modeling.layout import gather_rows
from detectron_libra.modeling.matching import ProposalMatch, match_proposals
from detectron_libra.modeling.postprocess import fast_rcnn_candidates
from detectron_libra.modeling.sampling import RoISampling, sample_rois
from detectron_libra.modeling.slots import RegionClassLoss
from detectron_libra.modeling.suppression import Candidates, DetectionRule
from detectron_libra.ops.roi_align import roi_align
from detectron_libra.structures import Batch, Proposals, Targets


@dataclass(frozen=True)
class Pooling:
    """How a region is cut out of the features.

    Attributes:
        levels: how many levels, from the finest, regions are cut from; 1 where there is no pyramid.
        min_level: the level of the finest.
        strides: of those levels, in pixels.
        resolution, sampling_ratio: RoIAlign's output side and samples per cell (0: as many as the cell is large).
        canonical_scale, canonical_level: a region of this side in pixels belongs to this level.
    """

    levels: int
    min_level: int
    strides: tuple[int, ...]
    resolution: int
    sampling_ratio: int
    canonical_scale: float
    canonical_level: int


def with_ground_truth(proposals: Proposals, targets: Targets) -> Proposals:
    """Proposals followed by the ground truth, which Detectron trains on too."""
    one = proposals.scores.new_ones(targets.boxes.shape[:2])
    return Proposals(
        torch.cat([proposals.boxes, targets.boxes], 1),
        torch.cat([proposals.scores, one], 1),
        torch.cat([proposals.valid, targets.valid], 1),
    )


class RegionHead(nn.Module):
    """The second stage.

    Args:
        head: (R, channels, S, S) to (R, dim).
        predictor: (R, dim) to class logits and deltas.
        pooling: how regions are cut out.
        sampling: which proposals are trained on.
        box_weights: factors of the encoded deltas.
        box_loss: loss of the boxes; class_loss: of the classes.
        detection: what is reported.
        box_threshold: IoU from which a positive learns a box.
        crowd_threshold: share of a proposal inside a crowd from which it is no background; None: crowds are.
    """

    def __init__(
        self,
        *,
        head: nn.Module,
        predictor: nn.Module,
        pooling: Pooling,
        sampling: RoISampling,
        box_weights: Sequence[float],
        box_loss: nn.Module,
        class_loss: RegionClassLoss,
        detection: DetectionRule,
        box_threshold: float = 0.0,
        crowd_threshold: float | None = None,
    ):
        super().__init__()
        self.head, self.predictor = head, predictor
        self.box_loss, self.class_loss = box_loss, class_loss
        self.pooling, self.sampling, self.detection = pooling, sampling, detection
        self.box_weights = tuple(box_weights)
        self.box_threshold, self.crowd_threshold = box_threshold, crowd_threshold

    def classify(self, levels: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (N*P, C) and deltas (N*P, C or 2, 4) of boxes (N, P, 4)."""
        images, per_image = boxes.shape[:2]
        index = torch.arange(images, device=boxes.device).repeat_interleave(per_image)
        p, geometry = self.pooling, self.detection.geometry
        regions = roi_align(
            levels[: p.levels],
            boxes.reshape(-1, 4),
            index,
            strides=p.strides,
            output_size=p.resolution,
            sampling_ratio=p.sampling_ratio,
            aligned=geometry.aligned_roi,
            canonical_scale=p.canonical_scale,
            canonical_level=p.canonical_level,
            min_level=p.min_level,
            extent=geometry.extent,
        )
        return self.predictor(self.head(regions))

    def match(self, proposals: Proposals, original: Targets, scales: Tensor) -> ProposalMatch:
        """Overlap of proposals (``with_ground_truth``) with ground truth.

        Args:
            original: the ground truth, with its boxes in pixels of the original image.
            scales: (N,) float32 resized / original.
        """
        return match_proposals(
            proposals.boxes / scales[:, None, None],
            proposals.valid,
            original,
            threshold=self.sampling.fg_thresh,
            extent=self.detection.geometry.extent,
            rule=self.detection.geometry.rules,
            crowd_threshold=self.crowd_threshold,
            own=original.boxes.shape[1],
        )

    def losses(
        self, levels: Sequence[Tensor], proposals: Proposals, targets: Targets, scales: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw losses and metrics of a sample of the proposals.

        Overlaps and deltas are those of the original image, as in Detectron: with an ``extent`` they depend on
        the scale. ``scales``: (N,) float32 resized / original.
        """
        extent, per_image = self.detection.geometry.extent, scales[:, None, None]
        with torch.no_grad():
            proposals = with_ground_truth(proposals, targets)
            original = replace(targets, boxes=targets.boxes / per_image)
            match = self.match(proposals, original, scales)
            sample = sample_rois(
                match,
                self.sampling,
                targets=targets,
                logits=lambda: self.classify(levels, proposals.boxes)[0].view(*match.index.shape, -1),
            )
            boxes = gather_rows(proposals.boxes, sample.index)
            gt = match.index.gather(1, sample.index)
            matched = gather_rows(original.boxes, match.box_index.gather(1, sample.index))
            classes = gather_rows(targets.classes[..., None], gt).squeeze(-1)
            classes = torch.where(sample.positive, classes, 0)
        logits, deltas = self.classify(levels, boxes)
        return fast_rcnn_losses(
            logits,
            deltas,
            (boxes / per_image).reshape(-1, 4),
            matched.reshape(-1, 4),
            classes.flatten(),
            sample.valid.flatten(),
            box_weights=self.box_weights,
            extent=extent,
            box_loss=self.box_loss,
            class_loss=self.class_loss,
            boxed=(match.iou.gather(1, sample.index) >= self.box_threshold).flatten(),
        )

    def candidates(
        self, levels: Sequence[Tensor], proposals: Proposals, batch: Batch, *, every: bool = False
    ) -> list[Candidates]:
        """What may be a detection of each image, before suppression; ``every``: see ``fast_rcnn_candidates``."""
        logits, deltas = self.classify(levels, proposals.boxes)
        return fast_rcnn_candidates(
            self.class_loss.probabilities(logits),
            deltas,
            proposals,
            batch,
            box_weights=self.box_weights,
            rule=self.detection,
            every=every,
        )
