// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks of the arguments of nms, shared by the CPU and the CUDA kernel.
#include "common/checks.h"

namespace detectron_libra {

inline void check_nms(const torch::stable::Tensor& boxes, const torch::stable::Tensor& groups,
                      const torch::stable::Tensor& order) {
  using torch::headeronly::ScalarType;
  check_dim(boxes, "boxes", 2);
  check_size(boxes, "boxes", 1, 4);
  STD_TORCH_CHECK(boxes.scalar_type() == ScalarType::Float || boxes.scalar_type() == ScalarType::Double,
                  "boxes must be float32 or float64");
  check_dim(groups, "groups", 1);
  check_dim(order, "order", 1);
  check_size(groups, "groups", 0, boxes.size(0));
  check_size(order, "order", 0, boxes.size(0));
  check_dtype(groups, "groups", ScalarType::Long, "int64");
  check_dtype(order, "order", ScalarType::Long, "int64");
  check_same_device(boxes, "boxes", groups, "groups");
  check_same_device(boxes, "boxes", order, "order");
}

}  // namespace detectron_libra
