// SPDX-License-Identifier: Apache-2.0
// Contract of scale_gradient: gradients, which a loss wrote in its forward pass, times the gradient that
// arrives.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  m.def("scale_gradient_(Tensor(a!)[] gradients, Tensor factor) -> ()");
}
