// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/parallel.h"
#include "ops/balanced_l1/on_levels_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

// One slot after another, chunk by chunk: positives are few, and what costs is to find them.
template <typename T, typename F>
double sum_of_slots(int64_t slots, const SlotTerms<T, F>& terms, accumulate_t<T> factor) {
  std::vector<double> partial(chunks_of(slots));
  parallel_ranges(chunks_of(slots), kGrain / kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      double sum = 0;
      const int64_t stop = std::min(slots, (chunk + 1) * kChunk);
      for (int64_t k = chunk * kChunk; k < stop; ++k) sum += terms.run(k, factor);
      partial[chunk] = sum;
    }
  });
  return sum_in_order(partial);
}

std::tuple<Tensor, TensorList> balanced_l1_on_levels_cpu(
    TensorList deltas, const Tensor& anchors, const Tensor& boxes, const optional<Tensor>& locations,
    const optional<Tensor>& positive, const optional<Tensor>& index, const optional<Tensor>& normalizer,
    double scale, double extent, int64_t form, double alpha, double gamma, double beta, bool with_gradient) {
  const LevelInputs in = checked_levels(deltas, anchors, boxes, locations, positive, index);
  check_normalizer(normalizer, in.deltas[0]);
  Tensor sum = allocate_number(in.deltas[0], sum_dtype(in.deltas[0]));
  TensorList gradients = zero_gradients(in, with_gradient);
  LIBRA_DISPATCH_FLOATING(in.deltas[0].scalar_type(), "balanced_l1_on_levels", [&] {
    using C = accumulate_t<scalar_t>;
    const double factor = factor_on_host<C>(scale, normalizer);
    with_form<C>(form, alpha, gamma, beta, [&](const auto& f) {
      const auto terms = slot_terms<scalar_t>(in, f, extent, gradients);
      *sum.mutable_data_ptr<C>() = C(sum_of_slots(in.slots, terms, C(factor)) * factor);
    });
  });
  return {sum, gradients};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("balanced_l1_on_levels", TORCH_BOX(&balanced_l1_on_levels_cpu));
}
}  // namespace detectron_libra
