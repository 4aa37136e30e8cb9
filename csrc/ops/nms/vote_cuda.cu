// SPDX-License-Identifier: Apache-2.0
// Box voting: a warp per top box adds up those that vote for it, in an order that never changes.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>

#include "common/dispatch.h"
#include "common/launch.cuh"
#include "ops/nms/nms_host.h"
#include "ops/nms/vote.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

constexpr int kWarp = 32, kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

template <typename T>
struct Votes {
  int64_t tops, voters;
  VoteRule<T> rule;
  const T *top_corners, *top_scores;
  const int64_t *begin, *end;
  const T *corners, *scores;
  T *boxes_out, *scores_out;
};

template <typename T>
__device__ VoteSums sums_of_lane(const Votes<T>& v, int64_t k, int lane) {
  const NmsBox<T> top = nms_box(v.top_corners + 4 * k, v.rule.extent);
  const int64_t from = v.begin[k] > 0 ? v.begin[k] : 0, to = v.end[k] < v.voters ? v.end[k] : v.voters;
  VoteSums sums{};
  for (int64_t j = from + lane; j < to; j += kWarp) {
    const T* c = v.corners + 4 * j;
    const T iou = box_iou(top, nms_box(c, v.rule.extent), v.rule.extent);
    if (!(iou >= v.rule.threshold)) continue;
    const double corners[4] = {double(c[0]), double(c[1]), double(c[2]), double(c[3])};
    sums.add(corners, double(v.scores[j]), double(iou), v.rule.method, v.rule.beta);
  }
  return sums;
}

__device__ VoteSums from_lane_below(const VoteSums& s, int step) {
  return {__shfl_down_sync(kAllLanes, s.x1, step),     __shfl_down_sync(kAllLanes, s.y1, step),
          __shfl_down_sync(kAllLanes, s.x2, step),     __shfl_down_sync(kAllLanes, s.y2, step),
          __shfl_down_sync(kAllLanes, s.weight, step), __shfl_down_sync(kAllLanes, s.score, step),
          __shfl_down_sync(kAllLanes, s.count, step)};
}

template <typename T>
__global__ void __launch_bounds__(kThreads) vote_kernel(Votes<T> v) {
  const int lane = threadIdx.x % kWarp;
  const int64_t first = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  for (int64_t k = first; k < v.tops; k += int64_t(gridDim.x) * kWarps) {
    VoteSums sums = sums_of_lane(v, k, lane);
    for (int step = kWarp / 2; step > 0; step /= 2) sums.add(from_lane_below(sums, step));
    if (lane == 0)
      sums.finish(v.top_corners + 4 * k, v.top_scores[k], v.rule.method, v.rule.beta, v.boxes_out + 4 * k,
                  v.scores_out + k);
  }
}

template <typename T>
void launch(const Votes<T>& v, cudaStream_t stream) {
  const int64_t want = (v.tops + kWarps - 1) / kWarps;
  vote_kernel<<<unsigned(want < kMaxBlocks ? want : kMaxBlocks), kThreads, 0, stream>>>(v);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor> vote_boxes_cuda(const Tensor& top_boxes, const Tensor& top_scores,
                                           const Tensor& begin, const Tensor& end, const Tensor& boxes,
                                           const Tensor& scores, int64_t method, double threshold,
                                           double beta, double extent) {
  check_vote(top_boxes, top_scores, begin, end, boxes, scores, method);
  const Tensor tops = torch::stable::contiguous(top_boxes), marks = torch::stable::contiguous(top_scores);
  const Tensor from = torch::stable::contiguous(begin), to = torch::stable::contiguous(end);
  const Tensor all = torch::stable::contiguous(boxes), s = torch::stable::contiguous(scores);
  Tensor out = torch::stable::empty_like(tops), out_scores = torch::stable::empty_like(marks);
  if (tops.size(0) == 0) return {out, out_scores};
  torch::stable::accelerator::DeviceGuard guard(tops.get_device_index());
  LIBRA_DISPATCH_FLOAT_DOUBLE(tops.scalar_type(), "vote_boxes", [&] {
    Votes<scalar_t> v;
    v.tops = tops.size(0);
    v.voters = all.size(0);
    v.rule = vote_rule<scalar_t>(threshold, extent, method, beta);
    v.top_corners = tops.const_data_ptr<scalar_t>();
    v.top_scores = marks.const_data_ptr<scalar_t>();
    v.begin = from.const_data_ptr<int64_t>();
    v.end = to.const_data_ptr<int64_t>();
    v.corners = all.const_data_ptr<scalar_t>();
    v.scores = s.const_data_ptr<scalar_t>();
    v.boxes_out = out.mutable_data_ptr<scalar_t>();
    v.scores_out = out_scores.mutable_data_ptr<scalar_t>();
    launch(v, current_stream(tops.get_device_index()));
  });
  return {out, out_scores};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("vote_boxes_in_groups", TORCH_BOX(&vote_boxes_cuda));
}
}  // namespace detectron_libra
