# SPDX-License-Identifier: Apache-2.0
"""Which ground truth each box overlaps most. Plain PyTorch everywhere; kernels are yet to come."""

from detectron_libra.ops.match_boxes.reference import Matches, match_boxes, max_overlap_with, pairwise_iou

__all__ = ["Matches", "match_boxes", "max_overlap_with", "pairwise_iou"]
