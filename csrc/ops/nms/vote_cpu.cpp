// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/simd.h"
#include "ops/nms/nms_host.h"
#include "ops/nms/vote.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

// The voters, one array a coordinate.
template <typename T>
struct Voters {
  std::vector<T> x1, y1, x2, y2, area;
  const T *corners, *scores;

  Voters(const Tensor& boxes, const Tensor& s, T extent)
      : x1(boxes.size(0)),
        y1(x1),
        x2(x1),
        y2(x1),
        area(x1),
        corners(boxes.const_data_ptr<T>()),
        scores(s.const_data_ptr<T>()) {
    for (size_t i = 0; i < x1.size(); ++i) {
      const NmsBox<T> b = nms_box(corners + 4 * i, extent);
      x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2, area[i] = b.area;
    }
  }
};

// IoUs a block at a time; the few that vote are added one by one, in the order of their boxes.
template <typename T>
LIBRA_INLINE VoteSums votes_for(const NmsBox<T>& top, const Voters<T>& all, int64_t begin, int64_t end,
                                const VoteRule<T>& rule) {
  constexpr int64_t kBlock = 64;
  const NmsBox<T> a = top;
  const T extent = rule.extent, threshold = rule.threshold;
  const T *x1 = all.x1.data(), *y1 = all.y1.data(), *x2 = all.x2.data(), *y2 = all.y2.data();
  const T* area = all.area.data();
  VoteSums sums{};
  T iou[kBlock];
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t count = std::min(kBlock, end - at);
    int any = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t j = at + k;
      iou[k] = box_iou(a, NmsBox<T>{x1[j], y1[j], x2[j], y2[j], area[j]}, extent);
      any |= iou[k] >= threshold;
    }
    if (!any) continue;
    for (int64_t k = 0; k < count; ++k) {
      if (!(iou[k] >= threshold)) continue;
      const T* c = all.corners + 4 * (at + k);
      const double corners[4] = {double(c[0]), double(c[1]), double(c[2]), double(c[3])};
      sums.add(corners, double(all.scores[at + k]), double(iou[k]), rule.method, rule.beta);
    }
  }
  return sums;
}

template <typename T>
void vote_of(const Tensor& top_boxes, const Tensor& top_scores, const int64_t* begin, const int64_t* end,
             const Voters<T>& all, const VoteRule<T>& rule, T* boxes_out, T* scores_out) {
  const T *tops = top_boxes.const_data_ptr<T>(), *scores = top_scores.const_data_ptr<T>();
  const int64_t voters = int64_t(all.x1.size());
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, voters));
  parallel_ranges(top_boxes.size(0), grain, [&](int64_t first, int64_t last) {
    vectorized([&] {
      for (int64_t k = first; k < last; ++k) {
        const int64_t from = std::clamp<int64_t>(begin[k], 0, voters);
        const int64_t to = std::clamp<int64_t>(end[k], from, voters);
        const VoteSums sums = votes_for(nms_box(tops + 4 * k, rule.extent), all, from, to, rule);
        sums.finish(tops + 4 * k, scores[k], rule.method, rule.beta, boxes_out + 4 * k, scores_out + k);
      }
    });
  });
}

std::tuple<Tensor, Tensor> vote_boxes_cpu(const Tensor& top_boxes, const Tensor& top_scores,
                                          const Tensor& begin, const Tensor& end, const Tensor& boxes,
                                          const Tensor& scores, int64_t method, double threshold, double beta,
                                          double extent) {
  check_vote(top_boxes, top_scores, begin, end, boxes, scores, method);
  const Tensor tops = torch::stable::contiguous(top_boxes), marks = torch::stable::contiguous(top_scores);
  const Tensor from = torch::stable::contiguous(begin), to = torch::stable::contiguous(end);
  const Tensor all = torch::stable::contiguous(boxes), s = torch::stable::contiguous(scores);
  Tensor out = torch::stable::empty_like(tops), out_scores = torch::stable::empty_like(marks);
  LIBRA_DISPATCH_FLOAT_DOUBLE(tops.scalar_type(), "vote_boxes", [&] {
    const auto rule = vote_rule<scalar_t>(threshold, extent, method, beta);
    vote_of(tops, marks, from.const_data_ptr<int64_t>(), to.const_data_ptr<int64_t>(),
            Voters<scalar_t>(all, s, rule.extent), rule, out.mutable_data_ptr<scalar_t>(),
            out_scores.mutable_data_ptr<scalar_t>());
  });
  return {out, out_scores};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("vote_boxes_in_groups", TORCH_BOX(&vote_boxes_cpu));
}
}  // namespace detectron_libra
