// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the boxes of the smallest keys out of a stream of them, in linear time and little memory.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/simd.h"

namespace detectron_libra {

constexpr int64_t kBlock = 1024;         // boxes whose integers are made at a time
constexpr uint32_t kNever = 0xffffffff;  // above every key's integer

// A key's integer in the high half and its column in the low one: no two are equal, and of equal keys the
// lower column comes first.
using Ranked = uint64_t;

inline Ranked ranked(uint32_t code, int64_t column) { return Ranked(code) << 32 | uint32_t(column); }

class Smallest {
 public:
  // Negative: none.
  explicit Smallest(int64_t quota) : quota_(quota < 0 ? 0 : quota), limit_(quota_ == 0 ? 0 : kNever) {}

  // Keys from here on are not among the smallest, whatever comes.
  uint32_t limit() const { return limit_; }

  // Takes a key below the limit, columns in rising order; returns the limit.
  uint32_t add(uint32_t code, int64_t column) {
    kept_.push_back(ranked(code, column));
    // Twice the quota: each cut, linear in what it cuts, throws away as much as it keeps.
    if (int64_t(kept_.size()) >= 2 * quota_ + 32) cut(quota_);
    return limit_;
  }

  // Takes those of a block of keys that are below the limit; kNever stands for no key.
  void offer(const uint32_t* code, int64_t count, int64_t first_column) {
    constexpr int64_t kStep = 64;
    for (int64_t start = 0; start < count; start += kStep) {
      const int64_t stop = std::min(count, start + kStep);
      if (!any_below(code + start, stop - start, limit_)) continue;
      for (int64_t i = start; i < stop; ++i)
        if (code[i] < limit_) add(code[i], first_column + i);
    }
  }

  template <typename Is>
  void drop(const Is& is) {
    kept_.erase(
        std::remove_if(kept_.begin(), kept_.end(), [&](Ranked r) { return is(int64_t(uint32_t(r))); }),
        kept_.end());
  }

  // What is kept, at most `count` of it.
  const std::vector<Ranked>& finish(int64_t count) {
    cut(count < 0 ? 0 : count);
    return kept_;
  }
  const std::vector<Ranked>& finish() { return finish(quota_); }

 private:
  // Without a branch inside: one comparison a lane.
  static bool any_below(const uint32_t* code, int64_t count, uint32_t limit) {
    uint32_t any = 0;
    for (int64_t i = 0; i < count; ++i) any |= uint32_t(code[i] < limit);
    return any != 0;
  }

  void cut(int64_t count) {
    if (int64_t(kept_.size()) <= count) return;
    if (count > 0) {
      std::nth_element(kept_.begin(), kept_.begin() + (count - 1), kept_.end());
      limit_ = uint32_t(kept_[count - 1] >> 32);
    }
    kept_.resize(count);
  }

  int64_t quota_;
  uint32_t limit_;
  std::vector<Ranked> kept_;
};

// Sets chosen[column] for each, and returns how many there are.
inline int64_t mark(const std::vector<Ranked>& kept, bool* chosen) {
  for (const Ranked r : kept) chosen[uint32_t(r)] = true;
  return int64_t(kept.size());
}

}  // namespace detectron_libra
