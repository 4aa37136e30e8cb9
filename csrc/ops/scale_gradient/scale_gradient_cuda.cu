// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/dispatch.h"
#include "common/launch.cuh"
#include "ops/scale_gradient/scale_gradient_host.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

// Gradients that one launch takes: their addresses travel as arguments of the kernel.
constexpr int kMost = 16;

template <typename T>
struct Gradients {
  T* data[kMost];
  int64_t size[kMost];
};

// Row y of blocks scales gradient y. A factor of 1, which training without loss weights sends, costs no
// memory traffic, and nobody on the host has to look at it.
template <typename T>
__global__ void scale(Gradients<T> gradients, const accumulate_t<T>* factor) {
  using C = accumulate_t<T>;
  const C number = *factor;
  if (number == C(1)) return;
  T* data = gradients.data[blockIdx.y];
  for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < gradients.size[blockIdx.y];
       i += int64_t(gridDim.x) * kThreads)
    data[i] = T(C(data[i]) * number);
}

template <typename T>
void launch(TensorList& list, size_t first, const Tensor& factor) {
  Gradients<T> gradients{};
  int64_t largest = 0;
  const size_t count = std::min<size_t>(kMost, list.size() - first);
  for (size_t i = 0; i < count; ++i) {
    gradients.data[i] = list[first + i].mutable_data_ptr<T>();
    gradients.size[i] = list[first + i].numel();
    largest = std::max(largest, gradients.size[i]);
  }
  if (largest == 0) return;
  const dim3 blocks(unsigned(std::min((largest + kThreads - 1) / kThreads, kMaxBlocks)), unsigned(count));
  scale<T><<<blocks, kThreads, 0, current_stream(factor.get_device_index())>>>(
      gradients, factor.const_data_ptr<accumulate_t<T>>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

void scale_gradient_cuda(TensorList gradients, const Tensor& factor) {
  check_gradients(gradients, factor);
  if (gradients.empty()) return;
  for (const auto& gradient : gradients)
    STD_TORCH_CHECK(gradient.scalar_type() == gradients[0].scalar_type(), "gradients must share one dtype");
  torch::stable::accelerator::DeviceGuard guard(factor.get_device_index());
  for (size_t first = 0; first < gradients.size(); first += kMost) {
    LIBRA_DISPATCH_FLOATING(gradients[0].scalar_type(), "scale_gradient_",
                            [&] { launch<scalar_t>(gradients, first, factor); });
  }
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("scale_gradient_", TORCH_BOX(&scale_gradient_cuda));
}
}  // namespace detectron_libra
