// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks of the samplers' arguments and room for their results, shared by the CPU and the CUDA kernel.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>

#include "common/checks.h"
#include "ops/sample_by_iou/sample_by_iou.h"

namespace detectron_libra {

// A (N, M) tensor of the samplers, or (N,) where it is not `per_box`, row by row in memory.
inline torch::stable::Tensor checked_rows(const torch::stable::Tensor& t, const char* name,
                                          torch::headeronly::ScalarType dtype, const char* dtype_name,
                                          const torch::stable::Tensor& candidates, bool per_box) {
  check_dim(t, name, per_box ? 2 : 1);
  check_size(t, name, 0, candidates.size(0));
  if (per_box) check_size(t, name, 1, candidates.size(1));
  check_dtype(t, name, dtype, dtype_name);
  check_same_device(t, name, candidates, "candidates");
  return torch::stable::contiguous(t);
}

// What every sampler gets, and room for what it gives.
struct Samples {
  torch::stable::Tensor candidates, num, keys, chosen;

  Samples(const torch::stable::Tensor& candidates_in, const torch::stable::Tensor& num_in,
          const torch::stable::Tensor& keys_in)
      : candidates(candidates_in), num(num_in), keys(keys_in), chosen(candidates_in) {
    using torch::headeronly::ScalarType;
    check_dim(candidates_in, "candidates", 2);
    candidates = checked_rows(candidates_in, "candidates", ScalarType::Bool, "bool", candidates_in, true);
    num = checked_rows(num_in, "num", ScalarType::Long, "int64", candidates_in, false);
    keys = checked_rows(keys_in, "keys", ScalarType::Float, "float32", candidates_in, true);
    chosen = torch::stable::empty_like(candidates);
  }

  int64_t images() const { return candidates.size(0); }
  int64_t boxes() const { return candidates.size(1); }
};

// The numbers of sample_by_iou.
struct IouRule {
  int64_t form, bins;
  LowSet low_set;
  double floor_fraction;
  float low, high;

  IouRule(int64_t form, int64_t bins, double floor, double floor_fraction, double high, double low)
      : form(form),
        bins(bins),
        low_set(floor),
        floor_fraction(floor_fraction),
        low(float(std::max({floor, form == kPaperParts ? low : 0.0, 0.0}))),
        high(float(high)) {
    STD_TORCH_CHECK(form == kPaperParts || form == kReleasedParts,
                    "form must be 0 (paper) or 1 (released), not ", form);
    STD_TORCH_CHECK(bins >= 1, "bins must be at least 1, not ", bins);
    STD_TORCH_CHECK(floor_fraction >= 0 && floor_fraction <= 1, "floor_fraction must be in 0..1, not ",
                    floor_fraction);
  }

  // The parts end at the largest IoU of the image, not at `high`.
  bool ends_at_largest() const { return form == kReleasedParts; }
};

inline std::optional<torch::stable::Tensor> checked_max_iou(
    const std::optional<torch::stable::Tensor>& max_iou, const torch::stable::Tensor& candidates) {
  if (!max_iou.has_value()) return std::nullopt;
  return checked_rows(*max_iou, "max_iou", torch::headeronly::ScalarType::Float, "float32", candidates,
                      false);
}

inline void check_instances(int64_t form, int64_t num_gt) {
  STD_TORCH_CHECK(form == kPaperParts || form == kReleasedParts,
                  "form must be 0 (paper) or 1 (released), not ", form);
  STD_TORCH_CHECK(num_gt >= 0, "num_gt must be at least 0, not ", num_gt);
}

}  // namespace detectron_libra
