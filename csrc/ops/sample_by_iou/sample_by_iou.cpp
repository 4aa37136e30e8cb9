// SPDX-License-Identifier: Apache-2.0
// Contract of the samplers; detectron_libra/ops/sample_by_iou/__init__.py says what the arguments mean.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  m.def("sample_uniform(Tensor candidates, Tensor num, Tensor keys) -> Tensor");
  m.def(
      "sample_by_iou(Tensor iou, Tensor candidates, Tensor num, Tensor keys, Tensor? max_iou, int form,"
      " int bins, float floor, float floor_fraction, float high, float low) -> Tensor");
  m.def(
      "sample_by_instance(Tensor index, Tensor candidates, Tensor num, Tensor keys, int form, SymInt num_gt)"
      " -> Tensor");
}
