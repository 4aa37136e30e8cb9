// SPDX-License-Identifier: Apache-2.0
#pragma once
// The rules of the random choice of boxes: how a key becomes an integer, which part of the IoU interval a box
// is in, and how many boxes each group gives. Shared by the CPU kernel, the CUDA kernel and
// detectron_libra._math; the definition is detectron_libra/ops/sample_by_iou/reference.py.
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/host_device.h"

namespace detectron_libra {

// Numbers that the Python side passes as `form`.
enum SampleForm : int64_t { kPaperParts = 0, kReleasedParts = 1 };

// Nothing is fused (-ffp-contract=off for g++; these for nvcc): an edge has the same bits everywhere.
#if defined(__CUDA_ARCH__)
LIBRA_HD float plain_product(float a, float b) { return __fmul_rn(a, b); }
LIBRA_HD float plain_sum(float a, float b) { return __fadd_rn(a, b); }
#else
LIBRA_HD float plain_product(float a, float b) { return a * b; }
LIBRA_HD float plain_sum(float a, float b) { return a + b; }
#endif

template <typename T>
LIBRA_HD T smaller(T a, T b) {
  return b < a ? b : a;
}

// A key of 0..1 in steps of 2^-31. What lies beyond counts as the nearer end, NaN as 0.
LIBRA_HD uint32_t key_code(float key) {
  constexpr float kSteps = 2147483648.0f;
  const float positive = key > 0.0f ? key : 0.0f, scaled = positive * kSteps;
  const bool below = scaled < kSteps;
  return below ? uint32_t(int32_t(below ? scaled : 0.0f)) : 0x80000000u;
}

// A key's integer stirred: 24 bits whose order tells nothing about that of the first. Thomas Mueller's 32-bit
// integer hash (multiplier 0x45d9f3b), a bijection, without its low 8 bits.
LIBRA_HD uint32_t second_code(uint32_t code) {
  uint32_t bits = (code ^ (code >> 16)) * 0x45d9f3bu;
  bits = (bits ^ (bits >> 16)) * 0x45d9f3bu;
  return (bits ^ (bits >> 16)) >> 8;
}

// [low, high) in `bins` equal parts, float32.
struct Parts {
  float low, width;
  int64_t bins;

  LIBRA_HD float edge(int64_t k) const { return plain_sum(low, plain_product(float(k), width)); }

  // Which part holds the IoU; `bins` for none, NaN too.
  LIBRA_HD int64_t of(float iou) const {
    int64_t reached = -1;
    for (int64_t k = 0; k <= bins; ++k) reached += !(edge(k) > iou);
    return reached < 0 ? bins : reached;
  }
};

LIBRA_HD Parts parts_of(float low, float high, int64_t bins) {
  const float span = high - low;
  return {low, (span < 0.0f ? 0.0f : span) / float(bins), bins};
}

// The boxes of little IoU, drawn apart: those below `floor`; IoU 0 and less where it is 0; none where
// negative.
struct LowSet {
  float below;
  bool inclusive;

  explicit LowSet(double floor)
      : below(floor >= 0 ? float(floor) : -std::numeric_limits<float>::infinity()), inclusive(floor == 0) {}

  LIBRA_HD bool has(float iou) const { return (iou < below) | (inclusive & (iou == below)); }
};

// How many of an image's `num` boxes are meant for the parts together, and for one of them.
struct Wanted {
  int64_t num, from_iou_set, share;
};

LIBRA_HD Wanted wanted_of(int64_t num, double floor_fraction, int64_t bins) {
  if (num <= 0) return {0, 0, 0};
  const int64_t wanted = int64_t(double(num) * (1.0 - floor_fraction));
  return {num, wanted, bins > 1 ? wanted / bins : 0};
}

// What the low set gives, and what the rest of the IoU set then has to.
struct Fill {
  int64_t low, rest;
};

LIBRA_HD Fill fill_of(const Wanted& wanted, int64_t iou_set, int64_t low_set, int64_t from_parts) {
  const int64_t low = smaller(wanted.num - smaller(wanted.from_iou_set, iou_set), low_set);
  return {low, wanted.num - from_parts - low};
}

// Most boxes that one of `instances` ground truths gives; halves are rounded to even.
LIBRA_HD int64_t instance_share(int64_t num, int64_t instances) {
  return int64_t(rint(double(num) / double(instances < 1 ? 1 : instances))) + 1;
}

}  // namespace detectron_libra
