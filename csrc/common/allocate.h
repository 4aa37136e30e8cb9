// SPDX-License-Identifier: Apache-2.0
#pragma once
// Uninitialised tensors by the shortest way there is: the calls of torch/csrc/stable/ops.h go through the
// dispatcher by name, which costs several times as much, and shows in a call on a few hundred numbers.
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace detectron_libra {

inline torch::stable::Tensor allocate(const torch::stable::Tensor& like, int64_t dims, const int64_t* sizes,
                                      const int64_t* strides, torch::headeronly::ScalarType dtype) {
  int32_t device = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle made = nullptr;
  const auto number = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dims, sizes, strides, number, device, like.get_device_index(), &made));
  return torch::stable::Tensor(made);
}

// Of the shape, dtype and memory order of a tensor without gaps.
inline torch::stable::Tensor allocate_like(const torch::stable::Tensor& dense) {
  return allocate(dense, dense.dim(), dense.sizes().data(), dense.strides().data(), dense.scalar_type());
}

// One number of that dtype.
inline torch::stable::Tensor allocate_number(const torch::stable::Tensor& like,
                                             torch::headeronly::ScalarType dtype) {
  return allocate(like, 0, nullptr, nullptr, dtype);
}

}  // namespace detectron_libra
