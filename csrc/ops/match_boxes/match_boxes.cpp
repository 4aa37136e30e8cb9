// SPDX-License-Identifier: Apache-2.0
// Contract of match_boxes; detectron_libra/ops/match_boxes/__init__.py says what each argument means.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  // (iou, index, best_for), each (N, M).
  m.def(
      "match_boxes(Tensor boxes, Tensor gt, Tensor valid, Tensor? candidates, float extent, float "
      "min_best_iou)"
      " -> (Tensor, Tensor, Tensor)");
  // (N, M): the largest share of a box inside one region.
  m.def("max_overlap_with(Tensor boxes, Tensor regions, Tensor mask, float extent) -> Tensor");
}
