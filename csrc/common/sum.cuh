// SPDX-License-Identifier: Apache-2.0
#pragma once
// CUDA: the two stages of a sum. A block adds one chunk; one block adds the partial sums.
#include <torch/csrc/stable/ops.h>

#include "common/launch.cuh"
#include "common/sum.h"

namespace detectron_libra {

// Sum over the threads of a block, in the same order every time; valid in thread 0.
__device__ inline double block_sum(double mine) {
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  return sums[0];
}

// scale / normalizer, read on the device: the host never waits for it.
template <typename C>
struct Factor {
  double scale;
  const C* normalizer;  // null: 1

  __device__ double get() const { return normalizer ? scale / double(*normalizer) : scale; }
};

template <typename C>
Factor<C> factor_of(double scale, const std::optional<torch::stable::Tensor>& normalizer) {
  return {scale, normalizer.has_value() ? normalizer->const_data_ptr<C>() : nullptr};
}

// Where a block's sum goes: straight to the result when it is the only one, otherwise into its place.
template <typename C>
struct SumPlace {
  double* partial;  // null: one block
  C* total;
  Factor<C> factor;

  __device__ void put(double sum) const {
    if (partial)
      partial[blockIdx.x] = sum;
    else
      *total = C(sum * factor.get());
  }
};

template <typename C>
__global__ void total_sum(int64_t count, SumPlace<C> place) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) mine += place.partial[i];
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) *place.total = C(sum * place.factor.get());
}

// Launches `first`(blocks, place, stream), whose block c hands the sum of chunk c to place.put(), and, unless
// one block did it all, the second stage. No chunk at all is one block without elements.
template <typename C, typename First>
void sum_in_two_stages(torch::stable::Tensor& total, int64_t chunks, const Factor<C>& factor,
                       const First& first) {
  torch::stable::accelerator::DeviceGuard guard(total.get_device_index());
  const cudaStream_t stream = current_stream(total.get_device_index());
  C* result = total.mutable_data_ptr<C>();
  if (chunks <= 1) {
    first(1u, SumPlace<C>{nullptr, result, factor}, stream);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
  torch::stable::Tensor partial = torch::stable::new_empty(
      total, torch::headeronly::IntHeaderOnlyArrayRef(&chunks, 1), torch::headeronly::ScalarType::Double);
  const SumPlace<C> place{partial.mutable_data_ptr<double>(), result, factor};
  first(unsigned(chunks), place, stream);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  total_sum<<<1, kThreads, 0, stream>>>(chunks, place);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace detectron_libra
