// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/simd.h"
#include "ops/nms/group_starts.h"
#include "ops/nms/nms_host.h"
#include "ops/nms/soft_nms.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

template <typename T>
struct SoftArrays {
  const T *corners, *scores;
  const int64_t* order;
  T* out;
  bool* keep;
};

// One group, one array a coordinate, in the order of the boxes' indices: the first of equal scores is found
// first. `live` is NaN for a box that was picked, left, or never had a number for a score.
template <typename T, int kMethod>
class SoftGroup {
 public:
  SoftGroup(const SoftArrays<T>& arrays, const SoftRule<T>& rule) : arrays_(arrays), rule_(rule) {}

  void run(int64_t begin, int64_t end) {
    load(begin, end);
    vectorized([&] {
      int64_t picked = 0;
      for (int64_t at = best(); at >= 0; at = best()) {
        const NmsBox<T> box{x1_[at], y1_[at], x2_[at], y2_[at], area_[at]};
        arrays_.keep[index_[at]] = true;
        live_[at] = kNone;
        lower_scores(box);
        if (++picked * 4 > count_) compact(), picked = 0;
      }
      // What is left holds -infinity or no number: nothing picks it, and it has not left.
      for (int64_t i = 0; i < count_; ++i) finish(i);
    });
  }

 private:
  static constexpr int64_t kLanes = 16, kPiece = 256;
  static constexpr T kNone = std::numeric_limits<T>::quiet_NaN();
  static constexpr T kLowest = -std::numeric_limits<T>::infinity();

  void load(int64_t begin, int64_t end) {
    count_ = end - begin;
    const int64_t room = (count_ + kPiece - 1) / kPiece * kPiece;
    for (auto* array : {&x1_, &y1_, &x2_, &y2_, &area_, &score_, &live_}) array->assign(room, kNone);
    best_.assign(room / kPiece, kLowest);
    index_.assign(arrays_.order + begin, arrays_.order + end);
    for (int64_t i = 0; i < count_; ++i) {
      const NmsBox<T> b = nms_box(arrays_.corners + 4 * index_[i], rule_.extent);
      x1_[i] = b.x1, y1_[i] = b.y1, x2_[i] = b.x2, y2_[i] = b.y2, area_[i] = b.area;
      score_[i] = live_[i] = arrays_.scores[index_[i]];
      arrays_.keep[index_[i]] = score_[i] != score_[i];
      if (live_[i] > best_[i / kPiece]) best_[i / kPiece] = live_[i];
    }
  }

  // The first box with the highest score; -1 when none is above -infinity.
  LIBRA_INLINE int64_t best() const {
    const auto piece = std::max_element(best_.begin(), best_.end()) - best_.begin();
    if (best_.empty() || best_[piece] == kLowest) return -1;
    int64_t at = piece * kPiece;
    while (live_[at] != best_[piece]) ++at;
    return at;
  }

  LIBRA_INLINE void lower_scores(const NmsBox<T>& box) {
    for (int64_t piece = 0; piece * kPiece < count_; ++piece) {
      T highest[kLanes];
      for (int k = 0; k < kLanes; ++k) highest[k] = kLowest;
      for (int64_t at = piece * kPiece; at < (piece + 1) * kPiece; at += kLanes)
        lower_block(box, at, highest);
      for (int k = 1; k < kLanes; ++k) highest[0] = highest[k] > highest[0] ? highest[k] : highest[0];
      best_[piece] = highest[0];
    }
  }

  LIBRA_INLINE void lower_block(const NmsBox<T>& box, int64_t at, T* highest) {
    const NmsBox<T> a = box;
    const SoftRule<T> rule = rule_;
    const T *x1 = x1_.data() + at, *y1 = y1_.data() + at, *x2 = x2_.data() + at, *y2 = y2_.data() + at;
    const T* area = area_.data() + at;
    T *score = score_.data() + at, *live = live_.data() + at;
    T after[kLanes], alive[kLanes];
    for (int k = 0; k < kLanes; ++k) {
      const T before = live[k], done = score[k];  // read whether needed or not: no branch
      const T iou = box_iou(a, NmsBox<T>{x1[k], y1[k], x2[k], y2[k], area[k]}, rule.extent);
      const Softened<T> now = soften<kMethod>(before, iou, rule);
      after[k] = before != before ? done : now.score;
      alive[k] = now.leaves ? kNone : now.score;
    }
    for (int k = 0; k < kLanes; ++k) {
      score[k] = after[k], live[k] = alive[k];
      highest[k] = alive[k] > highest[k] ? alive[k] : highest[k];
    }
  }

  LIBRA_INLINE void finish(int64_t i) {
    arrays_.out[index_[i]] = score_[i];
    if (live_[i] == live_[i]) arrays_.keep[index_[i]] = true;
  }

  // Closes the ranks around the boxes that are done with, in the same order.
  LIBRA_INLINE void compact() {
    int64_t to = 0;
    std::fill(best_.begin(), best_.end(), kLowest);
    for (int64_t i = 0; i < count_; ++i) {
      if (live_[i] != live_[i]) {
        finish(i);
        continue;
      }
      for (auto* array : {&x1_, &y1_, &x2_, &y2_, &area_, &score_, &live_}) (*array)[to] = (*array)[i];
      index_[to] = index_[i];
      if (live_[to] > best_[to / kPiece]) best_[to / kPiece] = live_[to];
      ++to;
    }
    std::fill(live_.begin() + to, live_.begin() + count_, kNone);
    count_ = to;
    best_.resize((count_ + kPiece - 1) / kPiece);
  }

  SoftArrays<T> arrays_;
  SoftRule<T> rule_;
  int64_t count_ = 0;
  std::vector<T> x1_, y1_, x2_, y2_, area_, score_, live_;
  std::vector<T> best_;  // the highest live score of each piece
  std::vector<int64_t> index_;
};

template <typename T>
void soft_nms_of(const SoftArrays<T>& arrays, const std::vector<int64_t>& starts, int64_t method,
                 const SoftRule<T>& rule) {
  with_soft_method(method, [&](auto chosen) {
    parallel_ranges(int64_t(starts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
      SoftGroup<T, decltype(chosen)::value> group(arrays, rule);
      for (int64_t g = begin; g < end; ++g) group.run(starts[g], starts[g + 1]);
    });
  });
}

std::tuple<Tensor, Tensor> soft_nms_cpu(const Tensor& boxes, const Tensor& scores, const Tensor& groups,
                                        const Tensor& order, int64_t method, double sigma,
                                        double overlap_threshold, double score_threshold, double extent) {
  check_soft_nms(boxes, scores, groups, order, method);
  const Tensor b = torch::stable::contiguous(boxes), s = torch::stable::contiguous(scores);
  const Tensor g = torch::stable::contiguous(groups), o = torch::stable::contiguous(order);
  Tensor out = empty_row(b, b.scalar_type()), keep = empty_row(b, torch::headeronly::ScalarType::Bool);
  const int64_t* visits = o.const_data_ptr<int64_t>();
  const auto starts = group_starts(g.const_data_ptr<int64_t>(), visits, b.size(0));
  LIBRA_DISPATCH_FLOAT_DOUBLE(b.scalar_type(), "soft_nms", [&] {
    SoftArrays<scalar_t> arrays;
    arrays.corners = b.const_data_ptr<scalar_t>();
    arrays.scores = s.const_data_ptr<scalar_t>();
    arrays.order = visits;
    arrays.out = out.mutable_data_ptr<scalar_t>();
    arrays.keep = keep.mutable_data_ptr<bool>();
    soft_nms_of(arrays, starts, method,
                soft_rule<scalar_t>(sigma, overlap_threshold, score_threshold, extent));
  });
  return {out, keep};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) { m.impl("soft_nms_in_order", TORCH_BOX(&soft_nms_cpu)); }
}  // namespace detectron_libra
