// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "common/sum.cuh"
#include "ops/balanced_l1/on_levels_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

// Block c adds the slots of chunk c. A location occurs once, so no two threads write one gradient.
template <typename T, typename F>
__global__ void slot_sums(int64_t slots, const __grid_constant__ SlotTerms<T, F> terms,
                          SumPlace<accumulate_t<T>> place) {
  using C = accumulate_t<T>;
  const int64_t begin = int64_t(blockIdx.x) * kChunk, end = begin + kChunk < slots ? begin + kChunk : slots;
  const C factor = C(place.factor.get());
  double mine = 0;
  for (int64_t k = begin + threadIdx.x; k < end; k += kThreads) mine += terms.run(k, factor);
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) place.put(sum);
}

std::tuple<Tensor, TensorList> balanced_l1_on_levels_cuda(
    TensorList deltas, const Tensor& anchors, const Tensor& boxes, const optional<Tensor>& locations,
    const optional<Tensor>& positive, const optional<Tensor>& index, const optional<Tensor>& normalizer,
    double scale, double extent, int64_t form, double alpha, double gamma, double beta, bool with_gradient) {
  const LevelInputs in = checked_levels(deltas, anchors, boxes, locations, positive, index);
  check_normalizer(normalizer, in.deltas[0]);
  Tensor sum = allocate_number(in.deltas[0], sum_dtype(in.deltas[0]));
  TensorList gradients = zero_gradients(in, with_gradient);
  LIBRA_DISPATCH_FLOATING(in.deltas[0].scalar_type(), "balanced_l1_on_levels", [&] {
    using C = accumulate_t<scalar_t>;
    with_form<C>(form, alpha, gamma, beta, [&](const auto& f) {
      const auto terms = slot_terms<scalar_t>(in, f, extent, gradients);
      sum_in_two_stages(sum, chunks_of(in.slots), factor_of<C>(scale, normalizer),
                        [&](unsigned blocks, const SumPlace<C>& place, cudaStream_t stream) {
                          slot_sums<<<blocks, kThreads, 0, stream>>>(in.slots, terms, place);
                        });
    });
  });
  return {sum, gradients};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("balanced_l1_on_levels", TORCH_BOX(&balanced_l1_on_levels_cuda));
}
}  // namespace detectron_libra
