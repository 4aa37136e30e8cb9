// SPDX-License-Identifier: Apache-2.0
// Contract of the pyramid operators; detectron_libra/ops/pyramid/__init__.py says what the arguments mean.
// `argmax` holds, for each max-pooled level, the position of the maximum inside its window in row-major
// order: uint8 where a window has at most 256 cells, int32 otherwise. Without `positions` it is empty, and
// the operator has no gradient.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  m.def("pyramid_integrate(Tensor[] levels, int refine, bool positions) -> (Tensor, Tensor[])");
  m.def(
      "pyramid_integrate_backward(Tensor grad, Tensor?[] passed, Tensor[] argmax, SymInt[] sizes, int refine)"
      " -> Tensor[]");
  m.def("pyramid_strengthen(Tensor[] levels, Tensor refined, int refine) -> (Tensor[], Tensor[])");
  m.def("pyramid_strengthen_backward(Tensor[] grads, Tensor[] argmax, int refine) -> Tensor");
}
