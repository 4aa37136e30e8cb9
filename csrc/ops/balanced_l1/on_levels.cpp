// SPDX-License-Identifier: Apache-2.0
// Contract of balanced_l1_on_levels; detectron_libra/ops/balanced_l1/on_levels.py says what each argument
// means.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  // The sum times scale / normalizer, and its gradient for each level (with_gradient; otherwise none). Either
  // locations (K,) with boxes (K, 4), or positive and index (N, M) with boxes (N, G, 4).
  m.def(
      "balanced_l1_on_levels(Tensor[] deltas, Tensor anchors, Tensor boxes, Tensor? locations, Tensor? "
      "positive,"
      " Tensor? index, Tensor? normalizer, float scale, float extent, int form, float alpha, float gamma,"
      " float beta, bool with_gradient) -> (Tensor, Tensor[])");
}
