// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "ops/balanced_l1/balanced_l1_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

template <typename T, typename F>
void write_values(const LossInputs& in, const F& f, Tensor& out) {
  using C = accumulate_t<T>;
  const T *pred = in.pred.const_data_ptr<T>(), *target = in.target.const_data_ptr<T>(),
          *weight = in.weight_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  parallel_ranges(in.pred.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const C value = f.value(C(pred[i]) - C(target[i]));
      to[i] = T(weight ? C(weight[i]) * value : value);
    }
  });
}

template <typename T, typename F>
void write_slopes(const LossInputs& in, const F& f, const T* grad, int64_t grad_step, Tensor& out) {
  using C = accumulate_t<T>;
  const T *pred = in.pred.const_data_ptr<T>(), *target = in.target.const_data_ptr<T>(),
          *weight = in.weight_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  parallel_ranges(in.pred.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const C slope = C(grad[i * grad_step]) * f.slope(C(pred[i]) - C(target[i]));
      to[i] = T(weight ? C(weight[i]) * slope : slope);
    }
  });
}

// Partial sums of kChunk elements each, added in their order: equal bits for any number of threads.
template <typename T, typename F>
double sum_of_values(const LossInputs& in, const F& f) {
  using C = accumulate_t<T>;
  const T *pred = in.pred.const_data_ptr<T>(), *target = in.target.const_data_ptr<T>(),
          *weight = in.weight_ptr<T>();
  const int64_t n = in.pred.numel(), chunks = (n + kChunk - 1) / kChunk;
  std::vector<double> partial(chunks);
  parallel_ranges(chunks, kGrain / kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      double sum = 0;
      for (int64_t i = chunk * kChunk; i < std::min(n, (chunk + 1) * kChunk); ++i) {
        const C value = f.value(C(pred[i]) - C(target[i]));
        sum += weight ? C(weight[i]) * value : value;
      }
      partial[chunk] = sum;
    }
  });
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

Tensor balanced_l1_cpu(const Tensor& pred, const Tensor& target, const optional<Tensor>& weight, int64_t form,
                       double alpha, double gamma, double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  Tensor out = torch::stable::empty_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1", [&] {
    with_form<accumulate_t<scalar_t>>(form, alpha, gamma, beta,
                                      [&](const auto& f) { write_values<scalar_t>(in, f, out); });
  });
  return out;
}

Tensor balanced_l1_sum_cpu(const Tensor& pred, const Tensor& target, const optional<Tensor>& weight,
                           int64_t form, double alpha, double gamma, double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  Tensor out = torch::stable::new_empty(pred, torch::headeronly::IntHeaderOnlyArrayRef(), sum_dtype(pred));
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_sum", [&] {
    using C = accumulate_t<scalar_t>;
    with_form<C>(form, alpha, gamma, beta,
                 [&](const auto& f) { *out.mutable_data_ptr<C>() = C(sum_of_values<scalar_t>(in, f)); });
  });
  return out;
}

Tensor balanced_l1_backward_cpu(const Tensor& grad, const Tensor& pred, const Tensor& target,
                                const optional<Tensor>& weight, int64_t form, double alpha, double gamma,
                                double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  const Tensor g = grad_in_order(grad, in);
  Tensor out = torch::stable::empty_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_backward", [&] {
    with_form<accumulate_t<scalar_t>>(form, alpha, gamma, beta, [&](const auto& f) {
      write_slopes<scalar_t>(in, f, g.const_data_ptr<scalar_t>(), g.dim() == 0 ? 0 : 1, out);
    });
  });
  return out;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("balanced_l1", TORCH_BOX(&balanced_l1_cpu));
  m.impl("balanced_l1_sum", TORCH_BOX(&balanced_l1_sum_cpu));
  m.impl("balanced_l1_backward", TORCH_BOX(&balanced_l1_backward_cpu));
}
}  // namespace detectron_libra
