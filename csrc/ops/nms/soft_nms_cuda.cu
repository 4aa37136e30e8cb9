// SPDX-License-Identifier: Apache-2.0
// Soft-NMS: one block per group picks its boxes one after the other; each thread keeps the scores of its own.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>

#include "common/dispatch.h"
#include "ops/nms/groups.cuh"
#include "ops/nms/soft_nms.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

constexpr int kWarp = 32, kWarps = kGroupThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

template <typename T>
struct SoftNms {
  Grouped<T> g;
  SoftRule<T> rule;
  const T* scores;
  T* live;     // (n,) by position; NaN: picked, gone, or never a number
  T* out;      // (n,) by index of the box
  bool* keep;  // (n,) likewise

  __device__ void end(int64_t i, T score, bool kept) const {
    const int64_t to = g.order[i];
    live[i] = T(nan(""));
    out[to] = score;
    keep[to] = kept;
  }
};

// The best score and its position; -1: none above -infinity.
template <typename T>
struct Pick {
  T score;
  long long at;

  // Of equal scores the lower position, which is the lower index.
  __device__ void meet(T other, long long position) {
    if (position < 0 || (at >= 0 && !(other > score) && !(other == score && position < at))) return;
    score = other, at = position;
  }

  __device__ void meet_lanes() {
    for (int step = kWarp / 2; step > 0; step /= 2)
      meet(__shfl_down_sync(kAllLanes, score, step), __shfl_down_sync(kAllLanes, at, step));
  }
};

// The best of all threads, known to all of them.
template <typename T>
__device__ Pick<T> best_of_block(Pick<T> mine) {
  __shared__ Pick<T> of_warp[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  mine.meet_lanes();
  __syncthreads();  // the last call's answer has been read
  if (lane == 0) of_warp[warp] = mine;
  __syncthreads();
  if (warp == 0) {
    Pick<T> all{T(0), -1};
    if (lane < kWarps) all = of_warp[lane];
    all.meet_lanes();
    __syncwarp();
    if (lane == 0) of_warp[0] = all;
  }
  __syncthreads();
  return of_warp[0];
}

// A thread's own boxes of [first, last) take their scores; returns their best.
template <typename T>
__device__ Pick<T> begin_group(const SoftNms<T>& soft, int64_t first, int64_t last) {
  const T lowest = -T(INFINITY);
  Pick<T> mine{lowest, -1};
  for (int64_t i = first + threadIdx.x; i < last; i += kGroupThreads) {
    const T score = soft.scores[soft.g.order[i]];
    soft.live[i] = score;
    if (score != score) soft.end(i, score, true);
    if (score > lowest) mine.meet(score, i);
  }
  return mine;
}

// A thread's own boxes meet the picked one; returns the best of those that stay.
template <int kMethod, typename T>
__device__ Pick<T> lower_scores(const SoftNms<T>& soft, int64_t first, int64_t last, int64_t picked) {
  const T lowest = -T(INFINITY);
  const NmsBox<T> box = nms_box(soft.g.sorted + 4 * picked, soft.rule.extent);
  Pick<T> mine{lowest, -1};
  for (int64_t i = first + threadIdx.x; i < last; i += kGroupThreads) {
    const T score = soft.live[i];
    if (score != score) continue;
    if (i == picked) {
      soft.end(i, score, true);
      continue;
    }
    const T iou = box_iou(box, nms_box(soft.g.sorted + 4 * i, soft.rule.extent), soft.rule.extent);
    const Softened<T> now = soften<kMethod>(score, iou, soft.rule);
    if (now.leaves) {
      soft.end(i, now.score, false);
      continue;
    }
    soft.live[i] = now.score;
    if (now.score > lowest) mine.meet(now.score, i);
  }
  return mine;
}

template <int kMethod, typename T>
__global__ void __launch_bounds__(kGroupThreads) soft_nms_kernel(SoftNms<T> soft) {
  for (int64_t at = blockIdx.x; at < *soft.g.count; at += gridDim.x) {
    const int64_t first = soft.g.first[at], last = soft.g.last[at];
    Pick<T> best = best_of_block(begin_group(soft, first, last));
    while (best.at >= 0) best = best_of_block(lower_scores<kMethod>(soft, first, last, best.at));
    for (int64_t i = first + threadIdx.x; i < last; i += kGroupThreads) {
      const T score = soft.live[i];
      if (score == score) soft.end(i, score, true);  // -infinity: nothing picks it, and it has not left
    }
  }
}

template <typename T>
void launch(const Tensor& boxes, const SoftNms<T>& soft, int64_t method, cudaStream_t stream) {
  find_groups(boxes, soft.g, stream);
  with_soft_method(method, [&](auto chosen) {
    constexpr int kMethod = decltype(chosen)::value;
    soft_nms_kernel<kMethod><<<group_blocks(soft.g.n), kGroupThreads, 0, stream>>>(soft);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

std::tuple<Tensor, Tensor> soft_nms_cuda(const Tensor& boxes, const Tensor& scores, const Tensor& groups,
                                         const Tensor& order, int64_t method, double sigma,
                                         double overlap_threshold, double score_threshold, double extent) {
  check_soft_nms(boxes, scores, groups, order, method);
  const Tensor b = torch::stable::contiguous(boxes), s = torch::stable::contiguous(scores);
  const Tensor g = torch::stable::contiguous(groups), o = torch::stable::contiguous(order);
  Tensor out = empty_row(b, b.scalar_type()), keep = empty_row(b, torch::headeronly::ScalarType::Bool);
  if (b.size(0) == 0) return {out, keep};
  torch::stable::accelerator::DeviceGuard guard(b.get_device_index());
  const cudaStream_t stream = current_stream(b.get_device_index());
  Tensor live = empty_row(b, b.scalar_type());
  GroupMemory memory(b);
  LIBRA_DISPATCH_FLOAT_DOUBLE(b.scalar_type(), "soft_nms", [&] {
    SoftNms<scalar_t> soft;
    soft.g = memory.view<scalar_t>(b, g, o);
    soft.rule = soft_rule<scalar_t>(sigma, overlap_threshold, score_threshold, extent);
    soft.scores = s.const_data_ptr<scalar_t>();
    soft.live = live.mutable_data_ptr<scalar_t>();
    soft.out = out.mutable_data_ptr<scalar_t>();
    soft.keep = keep.mutable_data_ptr<bool>();
    launch(b, soft, method, stream);
  });
  return {out, keep};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("soft_nms_in_order", TORCH_BOX(&soft_nms_cuda));
}
}  // namespace detectron_libra
