// SPDX-License-Identifier: Apache-2.0
// Contract of balanced_l1; detectron_libra/ops/balanced_l1/__init__.py says what each argument means.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  m.def(
      "balanced_l1(Tensor pred, Tensor target, Tensor? weight, int form, float alpha, float gamma, float "
      "beta)"
      " -> Tensor");
  m.def(
      "balanced_l1_backward(Tensor grad, Tensor pred, Tensor target, Tensor? weight, int form, float alpha,"
      " float gamma, float beta) -> Tensor");
  // The weighted sum times scale / normalizer, and its gradient for pred (with_gradient; otherwise empty).
  m.def(
      "balanced_l1_sum(Tensor pred, Tensor target, Tensor? weight, Tensor? normalizer, float scale, int form,"
      " float alpha, float gamma, float beta, bool with_gradient) -> (Tensor, Tensor)");
}
