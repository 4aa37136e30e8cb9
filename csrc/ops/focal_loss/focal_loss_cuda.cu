// SPDX-License-Identifier: Apache-2.0
// CUDA kernels of focal_loss. One launch serves all levels: a block takes kChunk logits (sigmoid) or anchors
// (softmax) of one of them.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/dispatch.h"
#include "common/sum.cuh"
#include "ops/focal_loss/focal_loss.h"
#include "ops/focal_loss/focal_loss_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

constexpr int kMostLevels = 16;  // their addresses travel as arguments of the kernel

template <typename T>
struct Levels {
  FocalLevel<T> level[kMostLevels];
  bool channels_last[kMostLevels];
  int64_t first_chunk[kMostLevels + 1];
  int count;
  int64_t images, cell_anchors, image_anchors, values;
  Labels labels;
  const float *weight, *class_weight;

  // Level that a block works on.
  __device__ int of_block() const {
    int l = 0;
    while (l + 1 < count && int64_t(blockIdx.x) >= first_chunk[l + 1]) ++l;
    return l;
  }
};

// Sigmoid: thread by thread over the logits in their order in memory.
template <typename T, typename F>
__global__ void sigmoid_sums(Levels<T> all, F focal, SumPlace<accumulate_t<T>> place) {
  using C = accumulate_t<T>;
  double mine = 0;
  if (all.count > 0) {
    const int l = all.of_block();
    const FocalLevel<T> level = all.level[l];
    const int64_t cells = level.height * level.width, channels = all.cell_anchors * all.values;
    const int64_t size = all.images * channels * cells;
    const int64_t begin = (int64_t(blockIdx.x) - all.first_chunk[l]) * kChunk;
    const int64_t end = begin + kChunk < size ? begin + kChunk : size;
    const C out = level.gradient ? C(place.factor.get()) : C(0);
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      int64_t n, cell;
      int channel;
      if (all.channels_last[l]) {
        const int64_t position = i / channels;
        channel = int(i - position * channels);
        n = position / cells;
        cell = position - n * cells;
      } else {
        const int64_t plane = i / cells;
        cell = i - plane * cells;
        n = plane / channels;
        channel = int(plane - n * channels);
      }
      const int a = channel / int(all.values), v = channel - a * int(all.values);
      const int64_t anchor = n * all.image_anchors + level.first + cell * all.cell_anchors + a;
      const int label = all.labels.get(anchor);
      C w = label < 0 ? C(0) : (all.weight ? C(all.weight[anchor]) : C(1));
      if (all.class_weight) w *= C(all.class_weight[v]);
      const FocalTerm<C> term = focal.at(C(level.logits[i]), v + 1 == label);
      if (w != C(0)) mine += double(w * term.value);
      if (level.gradient) level.gradient[i] = T(w == C(0) ? C(0) : w * out * term.slope);
    }
  }
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) place.put(sum);
}

// Softmax: a thread an anchor.
template <typename T>
__global__ void softmax_sums(Levels<T> all, accumulate_t<T> alpha, accumulate_t<T> gamma,
                             SumPlace<accumulate_t<T>> place) {
  using C = accumulate_t<T>;
  double mine = 0;
  if (all.count > 0) {
    const int l = all.of_block();
    const FocalLevel<T> level = all.level[l];
    const int64_t cells = level.height * level.width, anchors = cells * all.cell_anchors;
    const int64_t channels = all.cell_anchors * all.values, size = all.images * anchors;
    const int64_t begin = (int64_t(blockIdx.x) - all.first_chunk[l]) * kChunk;
    const int64_t end = begin + kChunk < size ? begin + kChunk : size;
    const int64_t step = all.channels_last[l] ? 1 : cells;
    const C out = level.gradient ? C(place.factor.get()) : C(0);
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
      const int64_t n = i / anchors, in_image = i - n * anchors;
      // Neighbouring threads take neighbouring cells where those are neighbours in memory.
      const int64_t a = all.channels_last[l] ? in_image % all.cell_anchors : in_image / cells;
      const int64_t cell = all.channels_last[l] ? in_image / all.cell_anchors : in_image % cells;
      const int64_t anchor = n * all.image_anchors + level.first + cell * all.cell_anchors + a;
      const int64_t base = all.channels_last[l] ? (n * cells + cell) * channels + a * all.values
                                                : (n * channels + a * all.values) * cells + cell;
      const int label = all.labels.get(anchor);
      C w = label < 0 ? C(0) : (all.weight ? C(all.weight[anchor]) : C(1));
      if (all.class_weight && label > 0) w *= C(all.class_weight[label - 1]);
      if (w == C(0)) {
        for (int64_t v = 0; v < all.values && level.gradient; ++v) level.gradient[base + v * step] = T(0);
        continue;
      }
      C top = C(level.logits[base]), sum = C(0);
      for (int64_t v = 1; v < all.values; ++v) {
        const C x = C(level.logits[base + v * step]);
        top = x > top ? x : top;
      }
      for (int64_t v = 0; v < all.values; ++v) sum += exponential(C(level.logits[base + v * step]) - top);
      const C lse = top + natural_log(sum);
      const C hit = C(level.logits[base + int64_t(label) * step]);
      const FocalTerm<C> term = softmax_focal<C>(hit - lse, label > 0, alpha, gamma);
      mine += double(w * term.value);
      for (int64_t v = 0; v < all.values && level.gradient; ++v) {
        const C p = exponential(C(level.logits[base + v * step]) - lse);
        level.gradient[base + v * step] = T(w * out * term.slope * ((v == label ? C(1) : C(0)) - p));
      }
    }
  }
  const double sum = block_sum(mine);
  if (threadIdx.x == 0) place.put(sum);
}

template <typename T>
Levels<T> levels_of(const FocalJob& job, const FocalOptions& options) {
  Levels<T> all{};
  all.count = int(job.logits.size());
  all.images = job.images, all.cell_anchors = job.cell_anchors, all.image_anchors = job.image_anchors;
  all.values = options.per_anchor();
  all.labels = job.label_reader(), all.weight = job.weights(), all.class_weight = job.class_weights();
  for (int l = 0; l < all.count; ++l) {
    all.level[l] = job.level<T>(l);
    all.channels_last[l] = job.channels_last[l];
    const int64_t logits = job.logits[l].numel();
    all.first_chunk[l + 1] = all.first_chunk[l] + chunks_of(options.softmax ? logits / all.values : logits);
  }
  return all;
}

template <typename T>
void launch(FocalJob& job, const FocalOptions& options, const optional<Tensor>& normalizer) {
  using C = accumulate_t<T>;
  const Levels<T> all = levels_of<T>(job, options);
  const C alpha = C(options.alpha), gamma = C(options.gamma);
  Levels<T> none = all;
  const int64_t chunks = all.first_chunk[all.count];
  if (chunks == 0) none.count = 0;  // one block that has nothing to add
  sum_in_two_stages(
      job.sum, chunks, factor_of<C>(options.scale, normalizer),
      [&](unsigned blocks, const SumPlace<C>& place, cudaStream_t stream) {
        if (options.softmax)
          softmax_sums<T><<<blocks, kThreads, 0, stream>>>(none, alpha, gamma, place);
        else if (options.gamma == 2)
          sigmoid_sums<<<blocks, kThreads, 0, stream>>>(none, SigmoidFocal<C, true>{alpha, gamma}, place);
        else
          sigmoid_sums<<<blocks, kThreads, 0, stream>>>(none, SigmoidFocal<C, false>{alpha, gamma}, place);
      });
}

std::tuple<Tensor, TensorList> focal_loss_cuda(TensorList logits, const Tensor& labels,
                                               const optional<Tensor>& weight,
                                               const optional<Tensor>& class_weight,
                                               const optional<Tensor>& normalizer, double scale, double alpha,
                                               double gamma, int64_t num_classes, bool softmax,
                                               bool with_gradient) {
  STD_TORCH_CHECK(logits.size() <= size_t(kMostLevels), "logits: at most ", kMostLevels, " levels on CUDA");
  const FocalOptions options{scale, alpha, gamma, num_classes, softmax};
  FocalJob job = prepare_focal_loss(logits, labels, weight, class_weight, normalizer, options, with_gradient);
  LIBRA_DISPATCH_FLOATING(logits[0].scalar_type(), "focal_loss_sum",
                          [&] { launch<scalar_t>(job, options, normalizer); });
  return {job.sum, job.gradients};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) { m.impl("focal_loss_sum", TORCH_BOX(&focal_loss_cuda)); }
}  // namespace detectron_libra
