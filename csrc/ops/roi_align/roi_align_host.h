// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the CPU and the CUDA side of roi_align share: checks, formats and allocation.
#include "common/checks.h"
#include "common/layout.h"
#include "ops/roi_align/roi_align.h"

namespace detectron_libra {

// The boxes of one call, with everything that decides where they are sampled.
struct RoiBoxes {
  torch::stable::Tensor boxes, image_index;  // (R, 4) float32; (R,) int64
  std::vector<float> scales;
  RoiAlignOptions options;

  int64_t size() const { return boxes.size(0); }
  const float* box(int64_t r) const { return boxes.const_data_ptr<float>() + 4 * r; }
};

inline RoiBoxes prepare_boxes(const torch::stable::Tensor& boxes, const torch::stable::Tensor& image_index,
                              const torch::stable::Tensor& features, const std::vector<int64_t>& strides,
                              size_t levels, const RoiAlignOptions& options) {
  using torch::headeronly::ScalarType;
  check_dim(boxes, "boxes", 2);
  check_size(boxes, "boxes", 1, 4);
  check_dtype(boxes, "boxes", ScalarType::Float, "float32");
  check_dim(image_index, "image_index", 1);
  check_size(image_index, "image_index", 0, boxes.size(0));
  check_dtype(image_index, "image_index", ScalarType::Long, "int64");
  check_same_device(boxes, "boxes", features, "levels");
  check_same_device(image_index, "image_index", features, "levels");
  STD_TORCH_CHECK(strides.size() == levels, "strides must hold one number per level, ", levels, ", got ",
                  strides.size());
  STD_TORCH_CHECK(options.output_size > 0, "output_size must be positive, got ", options.output_size);
  RoiBoxes out{torch::stable::contiguous(boxes), torch::stable::contiguous(image_index), {}, options};
  for (const int64_t stride : strides) {
    STD_TORCH_CHECK(stride > 0, "strides must be positive, got ", stride);
    out.scales.push_back(1.0f / float(stride));
  }
  return out;
}

struct RoiPooling {
  bool channels_last;
  TensorList levels;
  RoiBoxes rois;
  torch::stable::Tensor out;  // (R, C, S, S)
};

inline RoiPooling prepare_roi_align(const TensorList& levels, const torch::stable::Tensor& boxes,
                                    const torch::stable::Tensor& image_index,
                                    const std::vector<int64_t>& strides, const RoiAlignOptions& options) {
  check_pyramid(levels, "levels");
  const bool last = any_channels_last(levels);
  const int64_t side = options.output_size;
  RoiBoxes rois = prepare_boxes(boxes, image_index, levels[0], strides, levels.size(), options);
  return {last, in_format(levels, last), rois,
          empty_in_format(levels[0], {rois.size(), levels[0].size(1), side, side}, levels[0].scalar_type(),
                          last)};
}

struct RoiPoolingGrad {
  bool channels_last;
  torch::stable::Tensor grad;
  RoiBoxes rois;
  TensorList grads;  // one per level, not yet written
};

inline RoiPoolingGrad prepare_roi_align_backward(const torch::stable::Tensor& grad,
                                                 const torch::stable::Tensor& boxes,
                                                 const torch::stable::Tensor& image_index, int64_t images,
                                                 const std::vector<int64_t>& sizes, bool channels_last,
                                                 const std::vector<int64_t>& strides,
                                                 const RoiAlignOptions& options,
                                                 torch::headeronly::ScalarType dtype) {
  check_dim(grad, "grad", 4);
  const size_t levels = sizes.size() / 2;
  RoiPoolingGrad job{channels_last,
                     in_format(grad, channels_last),
                     prepare_boxes(boxes, image_index, grad, strides, levels, options),
                     {}};
  check_size(grad, "grad", 0, job.rois.size());
  check_size(grad, "grad", 2, options.output_size);
  check_size(grad, "grad", 3, options.output_size);
  for (size_t i = 0; i < levels; ++i)
    job.grads.push_back(
        empty_in_format(grad, {images, grad.size(1), sizes[2 * i], sizes[2 * i + 1]}, dtype, channels_last));
  return job;
}

}  // namespace detectron_libra
