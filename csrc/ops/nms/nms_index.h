// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the boxes of one group, laid out so that those which a given box can suppress lie in a few short runs:
// strips of nearby y1, each sorted by x1.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/simd.h"
#include "ops/nms/nms.h"

namespace detectron_libra {

template <typename T>
class NearBoxes {
 public:
  static constexpr int64_t kBlock = 16;  // boxes tested at once; strips are padded to it with NaN
  static constexpr int64_t kPlain = 48;  // groups up to this size are faster tested whole
  using Flag = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;  // as wide as T: one vector mask

  // Boxes in the order of their visits.
  void build(const std::vector<NmsBox<T>>& boxes, const NmsRule<T>& rule) {
    rule_ = rule;
    const bool pruned = choose_members(boxes);
    const int64_t n = int64_t(keys_.size());
    const int64_t strips = pruned ? std::max<int64_t>(1, int64_t(std::sqrt(double(n)) / 4)) : 1;
    const int64_t room = n + strips * kBlock;
    const T none = std::numeric_limits<T>::quiet_NaN();
    for (auto* array : {&x1_, &y1_, &x2_, &y2_, &area_}) array->assign(room, none);
    dropped_.assign(room, 0);
    place_.assign(boxes.size(), -1);
    strips_.clear();
    if (pruned) std::sort(keys_.begin(), keys_.end());
    int64_t at = 0;
    for (int64_t s = 0; s < strips; ++s)
      at = add_strip(boxes, n * s / strips, n * (s + 1) / strips, at, pruned);
  }

  // Whether the i-th box has been dropped.
  LIBRA_INLINE bool dropped(int64_t i) const { return place_[i] >= 0 && dropped_[place_[i]]; }

  // Drops what the i-th box suppresses, and it itself: a box is asked about once, before this.
  LIBRA_INLINE void drop_near(int64_t i, const NmsBox<T>& box) {
    if (place_[i] < 0) return;
    const T width = box.x2 - box.x1 + rule_.extent, height = box.y2 - box.y1 + rule_.extent;
    const Reach<T> x = corner_reach(box.x1, width, rule_.threshold, rule_.extent);
    const Reach<T> y = corner_reach(box.y1, height, rule_.threshold, rule_.extent);
    for (const Strip& strip : strips_) {
      int64_t begin = strip.begin, end = strip.end;
      if (strip.sorted) {
        if (strip.high < y.low || strip.low > y.high) continue;
        const T* first = x1_.data();
        begin = std::lower_bound(first + begin, first + end, x.low) - first;
        end = std::upper_bound(first + begin, first + end, x.high) - first;
      }
      for (int64_t j = begin / kBlock * kBlock; j < end; j += kBlock) drop_block(box, j);
    }
  }

 private:
  struct Strip {
    int64_t begin, end;  // begin is a multiple of kBlock
    T low, high;         // its y1
    bool sorted;         // by x1
  };

  // Which boxes take part: those that can overlap, or all of them where an IoU of 0 suppresses. Returns
  // whether sorting them pays and is safe.
  bool choose_members(const std::vector<NmsBox<T>>& boxes) {
    const bool prunable = rule_.threshold >= T(kNearestThreshold);
    bool pruned = prunable;
    keys_.clear();
    for (size_t i = 0; i < boxes.size(); ++i) {
      if (prunable && !can_overlap(boxes[i], rule_.extent)) continue;
      pruned = pruned && boxes[i].area >= T(kNearestArea);
      keys_.emplace_back(boxes[i].y1, int32_t(i));
    }
    return pruned && int64_t(keys_.size()) > kPlain;
  }

  // Lays the members [first, last) of keys_ from `at` on; returns where the next strip begins.
  int64_t add_strip(const std::vector<NmsBox<T>>& boxes, int64_t first, int64_t last, int64_t at,
                    bool sorted) {
    if (first == last) return at;
    strips_.push_back({at, at + last - first, keys_[first].first, keys_[last - 1].first, sorted});
    if (sorted) {
      for (int64_t k = first; k < last; ++k) keys_[k].first = boxes[keys_[k].second].x1;
      std::sort(keys_.begin() + first, keys_.begin() + last);
    }
    for (int64_t k = first; k < last; ++k, ++at) {
      const NmsBox<T>& b = boxes[keys_[k].second];
      place_[keys_[k].second] = int32_t(at);
      x1_[at] = b.x1, y1_[at] = b.y1, x2_[at] = b.x2, y2_[at] = b.y2, area_[at] = b.area;
    }
    return (at + kBlock - 1) / kBlock * kBlock;
  }

  LIBRA_INLINE void drop_block(const NmsBox<T>& box, int64_t at) {
    const NmsBox<T> a = box;
    const NmsRule<T> rule = rule_;
    const T *x1 = x1_.data() + at, *y1 = y1_.data() + at, *x2 = x2_.data() + at, *y2 = y2_.data() + at;
    const T* area = area_.data() + at;
    Flag* dropped = dropped_.data() + at;
    Flag now[kBlock];
    // Two loops: the compiler turns neither comparison into a branch.
    if (rule.inclusive) {
      for (int k = 0; k < kBlock; ++k)
        now[k] = box_iou(a, NmsBox<T>{x1[k], y1[k], x2[k], y2[k], area[k]}, rule.extent) >= rule.threshold;
    } else {
      for (int k = 0; k < kBlock; ++k)
        now[k] = box_iou(a, NmsBox<T>{x1[k], y1[k], x2[k], y2[k], area[k]}, rule.extent) > rule.threshold;
    }
    for (int k = 0; k < kBlock; ++k) dropped[k] |= now[k];
  }

  NmsRule<T> rule_;
  std::vector<std::pair<T, int32_t>> keys_;
  std::vector<Strip> strips_;
  std::vector<T> x1_, y1_, x2_, y2_, area_;
  std::vector<Flag> dropped_;
  std::vector<int32_t> place_;  // of the i-th box; -1: it takes no part
};

}  // namespace detectron_libra
