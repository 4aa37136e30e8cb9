// SPDX-License-Identifier: Apache-2.0
#pragma once
// Overlap of two boxes as suppression and voting ask for it.
#include <limits>

#include "common/host_device.h"

namespace detectron_libra {

template <typename T>
struct NmsBox {
  T x1, y1, x2, y2, area;
};

// No product is fused with a sum (-ffp-contract=off for g++; these for nvcc), so that a box exactly at the
// threshold gets the same answer from both kernels and from plain PyTorch.
#if defined(__CUDA_ARCH__)
LIBRA_HD float rounded_product(float a, float b) { return __fmul_rn(a, b); }
LIBRA_HD double rounded_product(double a, double b) { return __dmul_rn(a, b); }
#else
template <typename T>
LIBRA_HD T rounded_product(T a, T b) {
  return a * b;
}
#endif

// A side's length: `extent` is 1 where corners name the first and the last pixel, else 0.
template <typename T>
LIBRA_HD T nms_area(T x1, T y1, T x2, T y2, T extent) {
  return rounded_product(x2 - x1 + extent, y2 - y1 + extent);
}

// The box of four numbers in a row.
template <typename T>
LIBRA_HD NmsBox<T> nms_box(const T* corners, T extent) {
  const T x1 = corners[0], y1 = corners[1], x2 = corners[2], y2 = corners[3];
  return {x1, y1, x2, y2, nms_area(x1, y1, x2, y2, extent)};
}

// IoU; NaN where a coordinate is, or where neither box has an area. Selections, no branch: that vectorises.
template <typename T>
LIBRA_HD T box_iou(const NmsBox<T>& a, const NmsBox<T>& b, T extent) {
  const T left = a.x1 > b.x1 ? a.x1 : b.x1, right = a.x2 < b.x2 ? a.x2 : b.x2;
  const T top = a.y1 > b.y1 ? a.y1 : b.y1, bottom = a.y2 < b.y2 ? a.y2 : b.y2;
  const T width = right - left + extent, height = bottom - top + extent;
  const bool meet = (width > T(0)) & (height > T(0));
  const T overlap = meet ? rounded_product(width, height) : T(0);
  return overlap / (a.area + b.area - overlap);
}

template <typename T>
struct NmsRule {
  T threshold, extent;
  bool inclusive;
};

// In the precision of the boxes: the comparison with the threshold happens there.
template <typename T>
NmsRule<T> nms_rule(double threshold, double extent, bool inclusive) {
  return {T(threshold), T(extent), inclusive};
}

// IoU of a and b beyond the threshold. A NaN anywhere, or two boxes without area, never suppresses.
template <typename T>
LIBRA_HD bool suppresses(const NmsBox<T>& a, const NmsBox<T>& b, const NmsRule<T>& rule) {
  const T iou = box_iou(a, b, rule.extent);
  return rule.inclusive ? iou >= rule.threshold : iou > rule.threshold;
}

// Below this threshold, or this area, products may leave the normal numbers and the bounds below the proof.
constexpr double kNearestThreshold = 1e-6, kNearestArea = 1e-30;

// Whether a box can reach any IoU above 0. An intersection has positive sides only if both boxes do, since
// rounding keeps order; and an infinite area makes every IoU 0 or NaN.
template <typename T>
LIBRA_HD bool can_overlap(const NmsBox<T>& b, T extent) {
  const bool sides = (b.x2 - b.x1 + extent > T(0)) & (b.y2 - b.y1 + extent > T(0));
  return sides & (b.area > T(0)) & (b.area <= std::numeric_limits<T>::max());
}

template <typename T>
struct Reach {
  T low, high;
};

// Where the first corner of a box must lie, along one axis, for its IoU with a box that begins at `first` and
// is `side` long to reach t = threshold. The intersection is t times as long as either side at least, so
// first - side (1/t - 1) <= corner <= first + side (1 - t). The slack covers every rounding on the way there:
// each is within 2 units of the side, the extent or the coordinate.
template <typename T>
LIBRA_HD Reach<T> corner_reach(T first, T side, T threshold, T extent) {
  constexpr T kUnits = 16 * std::numeric_limits<T>::epsilon();
  const T t = threshold * (T(1) - kUnits);
  const T slack = kUnits * ((first < T(0) ? -first : first) + (side + extent) / t);
  return {first - side * (T(1) / t - T(1)) - slack, first + side * (T(1) - t) + slack};
}

}  // namespace detectron_libra
