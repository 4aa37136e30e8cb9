// SPDX-License-Identifier: Apache-2.0
// What surrounds the products of a Winograd convolution; detectron_libra/ops/conv3x3/__init__.py puts it
// together. `planes` are (P, T, C): P = (tile + 2)^2 matrices with a row for each tile of each level, level
// by level, image by image, row by row. `sizes` are N, H, W of each level in turn. tile: 2 or 4.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  m.def("winograd_input(Tensor[] levels, int tile) -> Tensor");
  m.def("winograd_input_backward(Tensor planes, SymInt[] sizes, int tile) -> Tensor[]");
  m.def("winograd_weight(Tensor weight, int tile, ScalarType dtype) -> Tensor");
  m.def("winograd_weight_backward(Tensor planes, int tile) -> Tensor");
  m.def("winograd_output(Tensor planes, Tensor? bias, bool relu, SymInt[] sizes, int tile) -> Tensor[]");
  m.def("winograd_output_backward(Tensor[] grads, Tensor[] outputs, int tile) -> Tensor");
}
