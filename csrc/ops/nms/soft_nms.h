// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a picked box lowers the scores of those it overlaps. Soft-NMS, arXiv:1704.04503, equations 2 and 3;
// which comparison is strict, and when a box leaves, as in Detectron's utils/cython_nms.pyx.
#include <cstdint>
#include <type_traits>

#include "common/elementary.h"
#include "ops/nms/nms.h"

namespace detectron_libra {

// Numbers that the Python side passes as `method`.
enum SoftMethod : int64_t { kLinear = 0, kGaussian = 1, kHard = 2 };

// The weight of a box at an IoU above 0 with the picked one.
template <typename T>
struct SoftRule {
  T sigma, overlap_threshold, score_threshold, extent;

  template <int kMethod>
  LIBRA_HD T weight(T iou) const {
    if constexpr (kMethod == kGaussian) return exponential(-rounded_product(iou, iou) / sigma);
    const T beyond = kMethod == kLinear ? T(1) - iou : T(0);
    return iou > overlap_threshold ? beyond : T(1);
  }
};

template <typename T>
SoftRule<T> soft_rule(double sigma, double overlap_threshold, double score_threshold, double extent) {
  return {T(sigma), T(overlap_threshold), T(score_threshold), T(extent)};
}

// A score after its box met the picked one. A box leaves only when it overlaps and ends below the threshold;
// an IoU that is no number counts as none.
template <typename T>
struct Softened {
  T score;
  bool leaves;
};

// One comparison a selection: g++ vectorises these, and not the same with `&` between them.
template <int kMethod, typename T>
LIBRA_HD Softened<T> soften(T score, T iou, const SoftRule<T>& rule) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const T near = iou > T(0) ? iou : T(0);
  const T weight = rule.template weight<kMethod>(near);
  // A weight of 0 leaves nothing of an infinite score either, and a NaN score stays.
  const T nothing = score == score ? T(0) : score;
  const T product = rounded_product(weight, score);
  const T lowered = weight > T(0) ? product : nothing;
  const T now = near > T(0) ? lowered : score;
  const T limit = near > T(0) ? rule.score_threshold : kLowest;
  return {now, now < limit};
}

// body(std::integral_constant of the method).
template <typename Body>
void with_soft_method(int64_t method, const Body& body) {
  switch (method) {
    case kLinear:
      return body(std::integral_constant<int, kLinear>{});
    case kGaussian:
      return body(std::integral_constant<int, kGaussian>{});
    default:
      return body(std::integral_constant<int, kHard>{});
  }
}

}  // namespace detectron_libra
