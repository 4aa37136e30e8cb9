// SPDX-License-Identifier: Apache-2.0
#pragma once
// Launch of an element-wise kernel on torch's current stream.
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>

namespace detectron_libra {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 65535;

inline cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

template <typename F>
__global__ void for_each_kernel(int64_t n, F f) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < n;
       i += int64_t(gridDim.x) * blockDim.x)
    f(i);
}

// Runs f(i) for i in [0, n) on the current stream of `like`'s device.
template <typename F>
void for_each(const torch::stable::Tensor& like, int64_t n, F f) {
  if (n == 0) return;
  torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  const int64_t want = (n + kThreads - 1) / kThreads;
  const int blocks = int(want < kMaxBlocks ? want : kMaxBlocks);
  for_each_kernel<<<blocks, kThreads, 0, current_stream(like.get_device_index())>>>(n, f);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace detectron_libra
