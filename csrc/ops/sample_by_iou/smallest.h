// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the boxes of the smallest keys out of a stream of them, in linear time and little memory.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>

#include "common/simd.h"

namespace detectron_libra {

constexpr int64_t kBlock = 1024;         // boxes whose integers are made at a time
constexpr int64_t kStep = 32;            // of these, tested at a time
constexpr uint32_t kNever = 0xffffffff;  // above every key's integer

// A key's integer in the high half and its column in the low one: no two are equal, and of equal keys the
// lower column comes first.
using Ranked = uint64_t;

inline Ranked ranked(uint32_t code, int64_t column) { return Ranked(code) << 32 | uint32_t(column); }

// Puts the `count` smallest in front. Buckets of the keys' high bits settle all but those of one bucket,
// which takes half the time of std::nth_element on all: few of its comparisons can be foreseen.
inline void smallest_first(Ranked* kept, int64_t size, int64_t count) {
  constexpr int kBits = 9;
  constexpr int64_t kFew = 128;  // for which buckets do not pay
  if (size <= count || count <= 0) return;
  if (size <= kFew) return std::nth_element(kept, kept + (count - 1), kept + size);
  uint32_t any = 0;
  for (int64_t i = 0; i < size; ++i) any |= uint32_t(kept[i] >> 32);
  const int shift = 32 + std::max(0, int(std::bit_width(any)) - kBits);
  uint32_t counts[1 << kBits] = {};
  for (int64_t i = 0; i < size; ++i) ++counts[kept[i] >> shift];
  int64_t before = 0;
  Ranked bucket = 0;
  while (before + counts[bucket] < count) before += counts[bucket++];
  int64_t left = 0;
  for (int64_t i = 0; i < size; ++i) {
    const Ranked r = kept[i];
    kept[i] = kept[left];
    kept[left] = r;
    left += (r >> shift) <= bucket;
  }
  std::partition(kept, kept + left, [&](Ranked r) { return (r >> shift) < bucket; });
  std::nth_element(kept + before, kept + (count - 1), kept + left);
}

// The integers of a block of keys, and which steps of it hold one below a limit: most hold none, and are
// passed by. To be filled in vector code.
struct KeyBlock {
  uint32_t code[kBlock];
  uint32_t hit[kBlock / kStep];

  LIBRA_INLINE void find_hits(int64_t count, uint32_t limit) {
    const int64_t steps = (count + kStep - 1) / kStep;
    for (int64_t i = count; i < steps * kStep; ++i) code[i] = kNever;
    for (int64_t step = 0; step < steps; ++step) {
      uint32_t any = 0;
      for (int64_t i = 0; i < kStep; ++i) any |= uint32_t(code[step * kStep + i] < limit);
      hit[step] = any;
    }
  }
};

class Smallest {
 public:
  // Of `boxes` columns the `quota` smallest; none where it is negative.
  Smallest(int64_t quota, int64_t boxes) : quota_(std::clamp<int64_t>(quota, 0, boxes)) {
    limit_ = quota_ == 0 ? 0 : kNever;
    // Twice the quota: each cut, linear in what it cuts, throws away as much as it keeps.
    capacity_ = kStep + std::min(std::max<int64_t>(2 * quota_, 256), boxes);
    kept_ = std::make_unique_for_overwrite<Ranked[]>(capacity_);
  }

  // Keys from here on are not among the smallest, whatever comes; 0 where none is wanted.
  uint32_t limit() const { return limit_; }
  int64_t size() const { return size_; }

  // Takes a key if it is below the limit, columns in rising order, without a branch. There must be room.
  void add(uint32_t code, int64_t column) {
    kept_[size_] = ranked(code, column);
    size_ += code < limit_;
  }

  // Room to add kStep keys.
  void make_room() {
    if (size_ + kStep <= capacity_) return;
    cut(quota_);
    limit_ = uint32_t(*std::max_element(begin(), end()) >> 32);
  }

  // Takes those of a block of keys that are below the limit; kNever stands for no key.
  void offer(const KeyBlock& block, int64_t count, int64_t first_column) {
    for (int64_t start = 0; start < count; start += kStep) {
      if (!block.hit[start / kStep]) continue;
      make_room();
      const int64_t stop = std::min(count, start + kStep);
      for (int64_t i = start; i < stop; ++i) add(block.code[i], first_column + i);
    }
  }

  // Leaves the `count` smallest of what is kept.
  void cut(int64_t count) {
    smallest_first(kept_.get(), size_, count);
    size_ = std::clamp<int64_t>(count, 0, size_);
  }
  void cut() { cut(quota_); }

  // Forgets the columns for which is(column).
  template <typename Is>
  void drop(const Is& is) {
    size_ = std::remove_if(begin(), end(), [&](Ranked r) { return is(uint32_t(r)); }) - begin();
  }

  Ranked* begin() const { return kept_.get(); }
  Ranked* end() const { return kept_.get() + size_; }

 private:
  int64_t quota_, capacity_, size_ = 0;
  uint32_t limit_;
  std::unique_ptr<Ranked[]> kept_;
};

// Sets chosen[column] for each.
template <typename Kept>
void mark(const Kept& kept, bool* chosen) {
  for (const Ranked r : kept) chosen[uint32_t(r)] = true;
}

}  // namespace detectron_libra
