# SPDX-License-Identifier: Apache-2.0
"""Test-time augmentation: candidates of several views of an image become those of the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detectron_libra.modeling.suppression import Candidates


@dataclass(frozen=True)
class Merging:
    """How views are merged.

    Attributes:
        views: how many there are of each image; the image as it is comes last.
        scores, boxes: "UNION" (both or none): the candidates of all views together. "AVG": each candidate has the
            mean of all views, "ID": that of the last view; with these the views need the same candidates.
    """

    views: int
    scores: str = "UNION"
    boxes: str = "UNION"

    @property
    def needs_every_candidate(self) -> bool:
        """Whether a view has to give low scores too, since their mean may be high."""
        return self.scores != "UNION"


def merge(views: Sequence[Candidates], how: Merging, *, score_threshold: float) -> Candidates:
    """Candidates of one image from those of its views.

    Args:
        views: one per view; row by row the same candidates unless all are taken together.
        score_threshold: lowest merged score; a union has had its threshold before.

    Source: Detectron's core/test.py, im_detect_bbox_aug.
    """
    if not how.needs_every_candidate:
        return Candidates(*(torch.cat(parts) for parts in zip(*views, strict=True)))
    last = views[-1]
    scores = torch.stack([v.scores for v in views]).mean(0) if how.scores == "AVG" else last.scores
    boxes = torch.stack([v.boxes for v in views]).mean(0) if how.boxes == "AVG" else last.boxes
    keep = scores > score_threshold
    return Candidates(boxes[keep], scores[keep], last.classes[keep])
