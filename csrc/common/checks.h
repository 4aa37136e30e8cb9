// SPDX-License-Identifier: Apache-2.0
#pragma once
// Refusals of an operator's arguments, each naming the argument.
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace detectron_libra {

inline void check_same_device(const torch::stable::Tensor& a, const char* a_name,
                              const torch::stable::Tensor& b, const char* b_name) {
  STD_TORCH_CHECK(a.device() == b.device(), a_name, " and ", b_name, " must be on the same device");
}

// Same shape, dtype and device.
inline void check_same(const torch::stable::Tensor& a, const char* a_name, const torch::stable::Tensor& b,
                       const char* b_name) {
  STD_TORCH_CHECK(a.sizes().equals(b.sizes()), a_name, " and ", b_name, " must have the same shape");
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), a_name, " and ", b_name, " must have the same dtype");
  check_same_device(a, a_name, b, b_name);
}

inline void check_dim(const torch::stable::Tensor& a, const char* name, int64_t dim) {
  STD_TORCH_CHECK(a.dim() == dim, name, " must have ", dim, " dimensions, not ", a.dim());
}

inline void check_size(const torch::stable::Tensor& a, const char* name, int64_t dim, int64_t size) {
  STD_TORCH_CHECK(a.size(dim) == size, name, " must have size ", size, " in dimension ", dim, ", not ",
                  a.size(dim));
}

inline void check_dtype(const torch::stable::Tensor& a, const char* name, torch::headeronly::ScalarType dtype,
                        const char* dtype_name) {
  STD_TORCH_CHECK(a.scalar_type() == dtype, name, " must be ", dtype_name);
}

inline void check_floating(const torch::stable::Tensor& a, const char* name) {
  using torch::headeronly::ScalarType;
  const ScalarType t = a.scalar_type();
  STD_TORCH_CHECK(
      t == ScalarType::Float || t == ScalarType::Double || t == ScalarType::Half || t == ScalarType::BFloat16,
      name, " must be float32, float64, float16 or bfloat16");
}

}  // namespace detectron_libra
