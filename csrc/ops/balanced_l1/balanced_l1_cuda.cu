// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>

#include "common/dispatch.h"
#include "common/sum.cuh"
#include "ops/balanced_l1/balanced_l1_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

template <typename T, typename F>
struct Terms {
  F f;
  const T *pred, *target, *weight;  // weight may be null

  Terms(const F& f, const LossInputs& in)
      : f(f),
        pred(in.pred.const_data_ptr<T>()),
        target(in.target.const_data_ptr<T>()),
        weight(in.weight_ptr<T>()) {}

  __device__ Term<accumulate_t<T>> at(int64_t i) const {
    using C = accumulate_t<T>;
    const Term<C> term = term_at(f, C(pred[i]) - C(target[i]));
    return weight ? weighted(term, C(weight[i])) : term;
  }
};

template <typename T, typename F>
struct WriteValue {
  Terms<T, F> terms;
  T* out;

  __device__ void operator()(int64_t i) const { out[i] = T(terms.at(i).value); }
};

template <typename T, typename F>
struct WriteSlope {
  Terms<T, F> terms;
  const T* grad;
  T* out;

  __device__ void operator()(int64_t i) const { out[i] = T(accumulate_t<T>(grad[i]) * terms.at(i).slope); }
};

// Block c adds the elements of chunk c, and writes their gradients where there is room for them.
template <typename T, typename F>
__global__ void partial_sums(int64_t n, Terms<T, F> terms, SumPlace<accumulate_t<T>> place, T* gradient) {
  using C = accumulate_t<T>;
  const int64_t begin = int64_t(blockIdx.x) * kChunk, end = begin + kChunk < n ? begin + kChunk : n;
  const C factor = gradient ? C(place.factor.get()) : C(0);
  double mine = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const Term<C> term = terms.at(i);
    mine += term.value;
    if (gradient) gradient[i] = T(term.slope * factor);
  }
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) place.put(sum);
}

Tensor balanced_l1_cuda(const Tensor& pred, const Tensor& target, const optional<Tensor>& weight,
                        int64_t form, double alpha, double gamma, double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  Tensor out = allocate_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1", [&] {
    with_form<accumulate_t<scalar_t>>(form, alpha, gamma, beta, [&](const auto& f) {
      using F = std::decay_t<decltype(f)>;
      for_each(in.pred, in.pred.numel(),
               WriteValue<scalar_t, F>{Terms<scalar_t, F>(f, in), out.mutable_data_ptr<scalar_t>()});
    });
  });
  return out;
}

Tensor balanced_l1_backward_cuda(const Tensor& grad, const Tensor& pred, const Tensor& target,
                                 const optional<Tensor>& weight, int64_t form, double alpha, double gamma,
                                 double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  const Tensor g = grad_in_order(grad, in);
  Tensor out = allocate_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_backward", [&] {
    with_form<accumulate_t<scalar_t>>(form, alpha, gamma, beta, [&](const auto& f) {
      using F = std::decay_t<decltype(f)>;
      for_each(in.pred, in.pred.numel(),
               WriteSlope<scalar_t, F>{Terms<scalar_t, F>(f, in), g.const_data_ptr<scalar_t>(),
                                       out.mutable_data_ptr<scalar_t>()});
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> balanced_l1_sum_cuda(const Tensor& pred, const Tensor& target,
                                                const optional<Tensor>& weight,
                                                const optional<Tensor>& normalizer, double scale,
                                                int64_t form, double alpha, double gamma, double beta,
                                                bool with_gradient) {
  const LossInputs in = checked_inputs(pred, target, weight);
  check_normalizer(normalizer, pred);
  auto [sum, gradient] = empty_sum(in, with_gradient);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_sum", [&] {
    using C = accumulate_t<scalar_t>;
    const auto factor = factor_of<C>(scale, normalizer);
    scalar_t* slopes = with_gradient ? gradient.mutable_data_ptr<scalar_t>() : nullptr;
    with_form<C>(form, alpha, gamma, beta, [&](const auto& f) {
      const Terms<scalar_t, std::decay_t<decltype(f)>> terms(f, in);
      sum_in_two_stages(sum, chunks_of(in.pred.numel()), factor,
                        [&](unsigned blocks, const SumPlace<C>& place, cudaStream_t stream) {
                          partial_sums<<<blocks, kThreads, 0, stream>>>(in.pred.numel(), terms, place,
                                                                        slopes);
                        });
    });
  });
  return {sum, gradient};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("balanced_l1", TORCH_BOX(&balanced_l1_cuda));
  m.impl("balanced_l1_backward", TORCH_BOX(&balanced_l1_backward_cuda));
  m.impl("balanced_l1_sum", TORCH_BOX(&balanced_l1_sum_cuda));
}
}  // namespace detectron_libra
