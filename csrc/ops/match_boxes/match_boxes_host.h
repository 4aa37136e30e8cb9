// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks and allocation that the CPU and the CUDA kernel share.
#include <torch/csrc/stable/ops.h>

#include <optional>

#include "common/checks.h"
#include "ops/match_boxes/match_boxes.h"

namespace detectron_libra {

struct MatchJob {
  torch::stable::Tensor boxes, gt, valid;
  std::optional<torch::stable::Tensor> candidates;
  int64_t images, count, num_gt;
  bool shared_boxes;  // the same for every image
  float extent;

  const float* boxes_of(int64_t image) const {
    return boxes.const_data_ptr<float>() + (shared_boxes ? 0 : image * count * 4);
  }
  const float* gt_of(int64_t image) const { return gt.const_data_ptr<float>() + image * num_gt * 4; }
  const bool* valid_of(int64_t image) const { return valid.const_data_ptr<bool>() + image * num_gt; }
  const bool* candidates_of(int64_t image) const {
    return candidates.has_value() ? candidates->const_data_ptr<bool>() + image * count : nullptr;
  }
  torch::stable::Tensor empty(torch::headeronly::ScalarType dtype) const {
    const int64_t sizes[] = {images, count};
    return torch::stable::new_empty(gt, torch::headeronly::IntHeaderOnlyArrayRef(sizes, 2), dtype);
  }
};

inline MatchJob prepare_match(const torch::stable::Tensor& boxes, const torch::stable::Tensor& gt,
                              const char* gt_name, const torch::stable::Tensor& valid, const char* valid_name,
                              const std::optional<torch::stable::Tensor>& candidates, double extent) {
  using torch::headeronly::ScalarType;
  check_dim(gt, gt_name, 3);
  check_size(gt, gt_name, 2, 4);
  check_dim(valid, valid_name, 2);
  check_size(valid, valid_name, 0, gt.size(0));
  check_size(valid, valid_name, 1, gt.size(1));
  STD_TORCH_CHECK(boxes.dim() == 2 || boxes.dim() == 3, "boxes must be (M, 4) or (N, M, 4)");
  const bool shared = boxes.dim() == 2;
  if (!shared) check_size(boxes, "boxes", 0, gt.size(0));
  check_size(boxes, "boxes", boxes.dim() - 1, 4);
  check_dtype(boxes, "boxes", ScalarType::Float, "float32");
  check_dtype(gt, gt_name, ScalarType::Float, "float32");
  check_dtype(valid, valid_name, ScalarType::Bool, "bool");
  check_same_device(boxes, "boxes", gt, gt_name);
  check_same_device(boxes, "boxes", valid, valid_name);
  MatchJob job{torch::stable::contiguous(boxes),
               torch::stable::contiguous(gt),
               torch::stable::contiguous(valid),
               std::nullopt,
               gt.size(0),
               boxes.size(boxes.dim() - 2),
               gt.size(1),
               shared,
               float(extent)};
  if (candidates.has_value()) {
    check_dim(*candidates, "candidates", 2);
    check_size(*candidates, "candidates", 0, job.images);
    check_size(*candidates, "candidates", 1, job.count);
    check_dtype(*candidates, "candidates", ScalarType::Bool, "bool");
    check_same_device(boxes, "boxes", *candidates, "candidates");
    job.candidates = torch::stable::contiguous(*candidates);
  }
  return job;
}

}  // namespace detectron_libra
