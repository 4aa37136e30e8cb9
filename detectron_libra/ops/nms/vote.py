# SPDX-License-Identifier: Apache-2.0
"""Box voting: a kept box becomes the mean of the boxes that it stands for."""

import torch
from torch import Tensor

from detectron_libra.ops.backend import is_built, use_compiled
from detectron_libra.ops.nms.checks import (
    by_group,
    check_boxes,
    check_choice,
    check_positive,
    in_working_dtype,
)
from detectron_libra.ops.nms.reference import VOTE_METHODS, vote_boxes_in_groups_reference

if is_built():
    _vote_boxes_in_groups = torch.ops.detectron_libra.vote_boxes_in_groups.default

    @torch.library.register_fake("detectron_libra::vote_boxes_in_groups")
    def _(top_boxes, top_scores, begin, end, boxes, scores, method, threshold, beta, extent):
        return top_boxes.new_empty(top_boxes.shape), top_scores.new_empty(top_scores.shape)


def vote_boxes(
    top_boxes: Tensor,
    top_scores: Tensor,
    top_groups: Tensor,
    all_boxes: Tensor,
    all_scores: Tensor,
    all_groups: Tensor,
    *,
    threshold: float,
    method: str = "ID",
    beta: float = 1.0,
    extent: float,
) -> tuple[Tensor, Tensor]:
    """Each top box as the score-weighted mean of all boxes of its group with an IoU at or above the threshold.

    top_boxes: (K, 4) floating, x1 y1 x2 y2 in px: those that suppression kept. top_scores: (K,) floating.
    top_groups: (K,) int64. all_boxes: (J, 4), all_scores: (J,) >= 0, all_groups: (J,): those before
    suppression, the kept ones among them; otherwise a box may have no vote. Half types are computed in float32.
    threshold: IoU, inclusive. extent: px added to x2 - x1 for a width (Geometry.extent).
    method: the new score, from the scores s of the n boxes that vote:
    "ID" the old one; "AVG" their mean; "IOU_AVG" their mean weighted by IoU; "TEMP_AVG" the mean of
    s^(1/beta) / (s^(1/beta) + (1 - s)^(1/beta)); "GENERALIZED_AVG" mean(s^beta)^(1/beta);
    "QUASI_SUM" sum(s) / n^beta.
    beta: above 0.

    Returns: boxes (K, 4) and scores (K,), float32 (float64 for float64 input). Without a vote, or with votes
    whose scores are all 0, a box stays as it is; without a vote so does its score.
    Raises: RuntimeError for shapes, dtypes or devices that do not match; ValueError for a method or a beta
    there is not. Each names the argument.
    Source: Gidaris and Komodakis, arXiv:1505.01749; scores as in Detectron's utils/boxes.py.
    """
    check_boxes(top_boxes, "top_boxes", top_scores=top_scores, top_groups=top_groups)
    check_boxes(all_boxes, "all_boxes", all_scores=all_scores, all_groups=all_groups)
    if all_boxes.device != top_boxes.device:
        raise RuntimeError(f"all_boxes is on {all_boxes.device} and top_boxes on {top_boxes.device}")
    number = check_choice("method", method, VOTE_METHODS)
    check_positive("beta", beta)
    tops, marks, boxes, scores = in_working_dtype(top_boxes, top_scores, all_boxes, all_scores)
    order = by_group(all_groups)
    groups = all_groups[order]
    top_groups = top_groups.contiguous()
    begin = torch.searchsorted(groups, top_groups)
    end = torch.searchsorted(groups, top_groups, right=True)
    run = _vote_boxes_in_groups if use_compiled(tops) else vote_boxes_in_groups_reference
    return run(tops, marks, begin, end, boxes[order], scores[order], number, threshold, beta, extent)
