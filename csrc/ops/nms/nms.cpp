// SPDX-License-Identifier: Apache-2.0
// Contracts of nms, soft-NMS and box voting; detectron_libra/ops/nms says what each argument means.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  // order: indices of the boxes, groups one after the other, by falling score within a group.
  m.def(
      "nms_in_order(Tensor boxes, Tensor groups, Tensor order, float threshold, float extent, bool inclusive)"
      " -> Tensor");
  // order: groups one after the other, by rising index within a group. Returns scores and the keep mask.
  m.def(
      "soft_nms_in_order(Tensor boxes, Tensor scores, Tensor groups, Tensor order, int method, float sigma,"
      " float overlap_threshold, float score_threshold, float extent) -> (Tensor, Tensor)");
  // boxes [begin, end) are those that may vote for a top box. Returns boxes and scores of the top ones.
  m.def(
      "vote_boxes_in_groups(Tensor top_boxes, Tensor top_scores, Tensor begin, Tensor end, Tensor boxes,"
      " Tensor scores, int method, float threshold, float beta, float extent) -> (Tensor, Tensor)");
}
