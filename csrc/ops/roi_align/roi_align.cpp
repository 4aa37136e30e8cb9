// SPDX-License-Identifier: Apache-2.0
// Contract of roi_align; detectron_libra/ops/roi_align/__init__.py says what the arguments mean.
// The backward operator gets what it cannot see any more: `images` = N, `sizes` = H and W of each level in
// turn, and whether the levels were channels_last.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(detectron_libra, m) {
  m.def(
      "roi_align(Tensor[] levels, Tensor boxes, Tensor image_index, int[] strides, int output_size, "
      "int sampling_ratio, bool aligned, float canonical_scale, int canonical_level, int min_level, "
      "float extent) -> Tensor");
  m.def(
      "roi_align_backward(Tensor grad, Tensor boxes, Tensor image_index, SymInt images, SymInt[] "
      "sizes, bool channels_last, int[] strides, int output_size, int sampling_ratio, bool aligned, float "
      "canonical_scale, int canonical_level, int min_level, float extent) -> Tensor[]");
}
