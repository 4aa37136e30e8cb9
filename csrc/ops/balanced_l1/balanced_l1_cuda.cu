// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/dispatch.h"
#include "common/launch.cuh"
#include "ops/balanced_l1/balanced_l1_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

template <typename T, typename F>
struct WriteValue {
  F f;
  const T *pred, *target, *weight;
  T* out;

  __device__ void operator()(int64_t i) const {
    using C = accumulate_t<T>;
    const C value = f.value(C(pred[i]) - C(target[i]));
    out[i] = T(weight ? C(weight[i]) * value : value);
  }
};

template <typename T, typename F>
struct WriteSlope {
  F f;
  const T *grad, *pred, *target, *weight;
  int64_t grad_step;  // 0: one gradient for all elements
  T* out;

  __device__ void operator()(int64_t i) const {
    using C = accumulate_t<T>;
    const C slope = C(grad[i * grad_step]) * f.slope(C(pred[i]) - C(target[i]));
    out[i] = T(weight ? C(weight[i]) * slope : slope);
  }
};

// Sum over the threads of a block, in the same order every time; valid in thread 0.
__device__ double block_sum(double mine) {
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  return sums[0];
}

// Block c adds the elements of chunk c.
template <typename T, typename F>
__global__ void partial_sums(int64_t n, F f, const T* pred, const T* target, const T* weight,
                             double* partial) {
  using C = accumulate_t<T>;
  const int64_t begin = int64_t(blockIdx.x) * kChunk, end = begin + kChunk < n ? begin + kChunk : n;
  double mine = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const C value = f.value(C(pred[i]) - C(target[i]));
    mine += weight ? C(weight[i]) * value : value;
  }
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block adds the partial sums.
template <typename C>
__global__ void total_sum(int64_t chunks, const double* partial, C* out) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kThreads) mine += partial[i];
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) *out = C(sum);
}

template <typename T, typename F>
void launch_partial_sums(const LossInputs& in, int64_t chunks, const F& f, double* partial,
                         cudaStream_t stream) {
  if (chunks == 0) return;
  partial_sums<<<unsigned(chunks), kThreads, 0, stream>>>(in.pred.numel(), f, in.pred.const_data_ptr<T>(),
                                                          in.target.const_data_ptr<T>(), in.weight_ptr<T>(),
                                                          partial);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename C>
void launch_total_sum(int64_t chunks, const double* partial, C* out, cudaStream_t stream) {
  total_sum<<<1, kThreads, 0, stream>>>(chunks, partial, out);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor balanced_l1_cuda(const Tensor& pred, const Tensor& target, const optional<Tensor>& weight,
                        int64_t form, double alpha, double gamma, double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  Tensor out = torch::stable::empty_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1", [&] {
    with_form<accumulate_t<scalar_t>>(form, alpha, gamma, beta, [&](const auto& f) {
      using F = std::decay_t<decltype(f)>;
      for_each(
          in.pred, in.pred.numel(),
          WriteValue<scalar_t, F>{f, in.pred.const_data_ptr<scalar_t>(), in.target.const_data_ptr<scalar_t>(),
                                  in.weight_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>()});
    });
  });
  return out;
}

Tensor balanced_l1_sum_cuda(const Tensor& pred, const Tensor& target, const optional<Tensor>& weight,
                            int64_t form, double alpha, double gamma, double beta) {
  using torch::headeronly::IntHeaderOnlyArrayRef;
  using torch::headeronly::ScalarType;
  const LossInputs in = checked_inputs(pred, target, weight);
  const int64_t chunks = (in.pred.numel() + kChunk - 1) / kChunk;
  Tensor out = torch::stable::new_empty(pred, IntHeaderOnlyArrayRef(), sum_dtype(pred));
  Tensor partial = torch::stable::new_empty(pred, IntHeaderOnlyArrayRef(&chunks, 1), ScalarType::Double);
  torch::stable::accelerator::DeviceGuard guard(pred.get_device_index());
  const cudaStream_t stream = current_stream(pred.get_device_index());
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_sum", [&] {
    using C = accumulate_t<scalar_t>;
    double* sums = partial.mutable_data_ptr<double>();
    with_form<C>(form, alpha, gamma, beta,
                 [&](const auto& f) { launch_partial_sums<scalar_t>(in, chunks, f, sums, stream); });
    launch_total_sum(chunks, sums, out.mutable_data_ptr<C>(), stream);
  });
  return out;
}

Tensor balanced_l1_backward_cuda(const Tensor& grad, const Tensor& pred, const Tensor& target,
                                 const optional<Tensor>& weight, int64_t form, double alpha, double gamma,
                                 double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  const Tensor g = grad_in_order(grad, in);
  Tensor out = torch::stable::empty_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_backward", [&] {
    with_form<accumulate_t<scalar_t>>(form, alpha, gamma, beta, [&](const auto& f) {
      using F = std::decay_t<decltype(f)>;
      for_each(in.pred, in.pred.numel(),
               WriteSlope<scalar_t, F>{f, g.const_data_ptr<scalar_t>(), in.pred.const_data_ptr<scalar_t>(),
                                       in.target.const_data_ptr<scalar_t>(), in.weight_ptr<scalar_t>(),
                                       g.dim() == 0 ? 0 : 1, out.mutable_data_ptr<scalar_t>()});
    });
  });
  return out;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("balanced_l1", TORCH_BOX(&balanced_l1_cuda));
  m.impl("balanced_l1_sum", TORCH_BOX(&balanced_l1_sum_cuda));
  m.impl("balanced_l1_backward", TORCH_BOX(&balanced_l1_backward_cuda));
}
}  // namespace detectron_libra
