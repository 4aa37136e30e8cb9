// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/dispatch.h"
#include "common/half.h"
#include "common/parallel.h"
#include "common/simd.h"
#include "ops/balanced_l1/balanced_l1_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

template <typename T>
struct Arrays {
  const T *pred, *target, *weight;  // weight may be null

  explicit Arrays(const LossInputs& in)
      : pred(in.pred.const_data_ptr<T>()),
        target(in.target.const_data_ptr<T>()),
        weight(in.weight_ptr<T>()) {}
};

template <typename C>
LIBRA_INLINE void put(Term<C> term, int64_t i, C* value, C* slope) {
  value[i] = term.value;
  slope[i] = term.slope;
}

// Loss and slope of `count` elements from `first` on, into blocks of the computing type. Loops over the
// block, one for each stage, are faster than one loop: see log1p_block.
template <typename T, typename F, typename C = accumulate_t<T>>
LIBRA_INLINE void terms(const Arrays<T>& in, const F& form, int64_t first, int64_t count, C* value,
                        C* slope) {
  const F f = form;  // in registers: the compiler cannot know that value and slope do not overlap it
  const T *pred = in.pred + first, *target = in.target + first;
  C *x = slope, *log = value;
  for (int64_t i = 0; i < count; ++i) {
    x[i] = read(pred, i) - read(target, i);
    if constexpr (F::kLogarithm) log[i] = f.argument(x[i]);
    if constexpr (!F::kLogarithm) put(f.at(x[i], C(0)), i, value, slope);
  }
  if constexpr (F::kLogarithm) {
    log1p_block<Lanes<C>::kBlock>(log, count);
    for (int64_t i = 0; i < count; ++i) put(f.at(x[i], log[i]), i, value, slope);
  }
  if (in.weight == nullptr) return;
  const T* weight = in.weight + first;
  for (int64_t i = 0; i < count; ++i)
    put(weighted(Term<C>{value[i], slope[i]}, read(weight, i)), i, value, slope);
}

// write(first, count, value, slope) for every block of the input.
template <typename T, typename F, typename Write>
void for_each_block(const LossInputs& in, const F& f, const Write& write) {
  using C = accumulate_t<T>;
  const Arrays<T> arrays(in);
  parallel_ranges(in.pred.numel(), kGrain, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      constexpr int64_t kBlock = Lanes<C>::kBlock;
      C value[kBlock], slope[kBlock];
      for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t count = std::min(kBlock, end - first);
        terms(arrays, f, first, count, value, slope);
        write(first, count, value, slope);
      }
    });
  });
}

// The sum, and where `gradient` is given its slope times `factor`: one pass over the input, one logarithm.
template <typename T, typename F>
double sum_of_terms(const LossInputs& in, const F& f, accumulate_t<T> factor, T* gradient) {
  using C = accumulate_t<T>;
  const Arrays<T> arrays(in);
  const int64_t n = in.pred.numel();
  std::vector<double> partial(chunks_of(n));
  parallel_ranges(chunks_of(n), kGrain / kChunk, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      constexpr int64_t kBlock = Lanes<C>::kBlock;
      C value[kBlock], slope[kBlock];
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        Lanes<C> sum;
        const int64_t stop = std::min(n, (chunk + 1) * kChunk);
        for (int64_t first = chunk * kChunk; first < stop; first += kBlock) {
          const int64_t count = std::min(kBlock, stop - first);
          terms(arrays, f, first, count, value, slope);
          for (int64_t i = count; i < kBlock; ++i) value[i] = C(0);
          sum.add(value);
          if (gradient == nullptr) continue;
          for (int64_t i = 0; i < count; ++i) write(gradient, first + i, slope[i] * factor);
        }
        partial[chunk] = sum.total();
      }
    });
  });
  return sum_in_order(partial);
}

Tensor balanced_l1_cpu(const Tensor& pred, const Tensor& target, const optional<Tensor>& weight, int64_t form,
                       double alpha, double gamma, double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  Tensor out = allocate_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1", [&] {
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    with_form<accumulate_t<scalar_t>>(form, alpha, gamma, beta, [&](const auto& f) {
      for_each_block<scalar_t>(in, f, [&](int64_t first, int64_t count, const auto* value, const auto*) {
        for (int64_t i = 0; i < count; ++i) write(to, first + i, value[i]);
      });
    });
  });
  return out;
}

Tensor balanced_l1_backward_cpu(const Tensor& grad, const Tensor& pred, const Tensor& target,
                                const optional<Tensor>& weight, int64_t form, double alpha, double gamma,
                                double beta) {
  const LossInputs in = checked_inputs(pred, target, weight);
  const Tensor g = grad_in_order(grad, in);
  Tensor out = allocate_like(in.pred);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_backward", [&] {
    using C = accumulate_t<scalar_t>;
    const scalar_t* from = g.const_data_ptr<scalar_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    with_form<C>(form, alpha, gamma, beta, [&](const auto& f) {
      for_each_block<scalar_t>(in, f, [&](int64_t first, int64_t count, const auto*, const auto* slope) {
        for (int64_t i = 0; i < count; ++i) write(to, first + i, read(from, first + i) * slope[i]);
      });
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> balanced_l1_sum_cpu(const Tensor& pred, const Tensor& target,
                                               const optional<Tensor>& weight,
                                               const optional<Tensor>& normalizer, double scale, int64_t form,
                                               double alpha, double gamma, double beta, bool with_gradient) {
  const LossInputs in = checked_inputs(pred, target, weight);
  check_normalizer(normalizer, pred);
  auto [sum, gradient] = empty_sum(in, with_gradient);
  LIBRA_DISPATCH_FLOATING(pred.scalar_type(), "balanced_l1_sum", [&] {
    using C = accumulate_t<scalar_t>;
    const double factor = factor_on_host<C>(scale, normalizer);
    scalar_t* slopes = with_gradient ? gradient.mutable_data_ptr<scalar_t>() : nullptr;
    with_form<C>(form, alpha, gamma, beta, [&](const auto& f) {
      *sum.mutable_data_ptr<C>() = C(sum_of_terms<scalar_t>(in, f, C(factor), slopes) * factor);
    });
  });
  return {sum, gradient};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("balanced_l1", TORCH_BOX(&balanced_l1_cpu));
  m.impl("balanced_l1_backward", TORCH_BOX(&balanced_l1_backward_cpu));
  m.impl("balanced_l1_sum", TORCH_BOX(&balanced_l1_sum_cpu));
}
}  // namespace detectron_libra
