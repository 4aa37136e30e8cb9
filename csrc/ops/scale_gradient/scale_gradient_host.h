// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "common/checks.h"
#include "common/layout.h"
#include "common/sum.h"

namespace detectron_libra {

inline void check_gradients(const TensorList& gradients, const torch::stable::Tensor& factor) {
  STD_TORCH_CHECK(factor.numel() == 1, "factor must hold one number");
  for (const auto& gradient : gradients) {
    check_floating(gradient, "gradients");
    check_same_device(gradient, "gradients", factor, "factor");
    STD_TORCH_CHECK(factor.scalar_type() == sum_dtype(gradient),
                    "factor must be float64 for float64 gradients and float32 for others");
    STD_TORCH_CHECK(gradient.is_contiguous() || (gradient.dim() == 4 && is_channels_last(gradient)),
                    "gradients must lie in memory without gaps");
  }
}

}  // namespace detectron_libra
