// SPDX-License-Identifier: Apache-2.0
// Contract of focal_loss; detectron_libra/ops/focal_loss/__init__.py says what each argument means.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  // The weighted sum over all levels times scale / normalizer, and its gradient per level (with_gradient;
  // otherwise no tensor).
  m.def(
      "focal_loss_sum(Tensor[] logits, Tensor labels, Tensor? weight, Tensor? class_weight, Tensor? "
      "normalizer,"
      " float scale, float alpha, float gamma, int num_classes, bool softmax, bool with_gradient)"
      " -> (Tensor, Tensor[])");
}
