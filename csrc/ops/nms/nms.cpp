// SPDX-License-Identifier: Apache-2.0
// Contract of nms; detectron_libra/ops/nms/__init__.py says what each argument means.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  // order: indices of the boxes, groups one after the other, by falling score within a group.
  m.def(
      "nms_in_order(Tensor boxes, Tensor groups, Tensor order, float threshold, float extent, bool inclusive)"
      " -> Tensor");
}
