// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks and allocation of nms, soft-NMS and box voting, shared by the CPU and the CUDA kernels.
#include <torch/csrc/stable/ops.h>

#include "common/checks.h"

namespace detectron_libra {

inline void check_boxes(const torch::stable::Tensor& boxes, const char* name) {
  using torch::headeronly::ScalarType;
  check_dim(boxes, name, 2);
  check_size(boxes, name, 1, 4);
  STD_TORCH_CHECK(boxes.scalar_type() == ScalarType::Float || boxes.scalar_type() == ScalarType::Double, name,
                  " must be float32 or float64");
}

// One number a box, in a given dtype.
inline void check_row(const torch::stable::Tensor& row, const char* name, const torch::stable::Tensor& boxes,
                      const char* boxes_name, torch::headeronly::ScalarType dtype, const char* dtype_name) {
  check_dim(row, name, 1);
  check_size(row, name, 0, boxes.size(0));
  check_dtype(row, name, dtype, dtype_name);
  check_same_device(boxes, boxes_name, row, name);
}

inline void check_index(const torch::stable::Tensor& row, const char* name,
                        const torch::stable::Tensor& boxes, const char* boxes_name) {
  check_row(row, name, boxes, boxes_name, torch::headeronly::ScalarType::Long, "int64");
}

// Positions of boxes are 32-bit numbers.
inline void check_nms(const torch::stable::Tensor& boxes, const torch::stable::Tensor& groups,
                      const torch::stable::Tensor& order) {
  check_boxes(boxes, "boxes");
  STD_TORCH_CHECK(boxes.size(0) < (int64_t(1) << 30), "boxes has ", boxes.size(0),
                  " rows, and at most 2^30 are possible: keep the best scores first");
  check_index(groups, "groups", boxes, "boxes");
  check_index(order, "order", boxes, "boxes");
}

inline void check_soft_nms(const torch::stable::Tensor& boxes, const torch::stable::Tensor& scores,
                           const torch::stable::Tensor& groups, const torch::stable::Tensor& order,
                           int64_t method) {
  check_nms(boxes, groups, order);
  check_row(scores, "scores", boxes, "boxes", boxes.scalar_type(), "of the dtype of boxes");
  STD_TORCH_CHECK(method >= 0 && method <= 2, "method must be 0 (linear), 1 (gaussian) or 2 (hard), not ",
                  method);
}

inline void check_vote(const torch::stable::Tensor& top_boxes, const torch::stable::Tensor& top_scores,
                       const torch::stable::Tensor& begin, const torch::stable::Tensor& end,
                       const torch::stable::Tensor& boxes, const torch::stable::Tensor& scores,
                       int64_t method) {
  check_boxes(top_boxes, "top_boxes");
  check_boxes(boxes, "boxes");
  STD_TORCH_CHECK(boxes.scalar_type() == top_boxes.scalar_type(), "top_boxes and boxes must share a dtype");
  check_same_device(top_boxes, "top_boxes", boxes, "boxes");
  check_row(top_scores, "top_scores", top_boxes, "top_boxes", boxes.scalar_type(), "of the dtype of boxes");
  check_row(scores, "scores", boxes, "boxes", boxes.scalar_type(), "of the dtype of boxes");
  check_index(begin, "begin", top_boxes, "top_boxes");
  check_index(end, "end", top_boxes, "top_boxes");
  STD_TORCH_CHECK(method >= 0 && method <= 5, "method must be from 0 to 5, not ", method);
}

// One number of `dtype` for each box.
inline torch::stable::Tensor empty_row(const torch::stable::Tensor& boxes,
                                       torch::headeronly::ScalarType dtype) {
  const int64_t n = boxes.size(0);
  return torch::stable::new_empty(boxes, torch::headeronly::IntHeaderOnlyArrayRef(&n, 1), dtype);
}

}  // namespace detectron_libra
