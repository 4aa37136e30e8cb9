// SPDX-License-Identifier: Apache-2.0
#pragma once
// Overlap of two boxes as greedy suppression asks for it.
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

// IoU of a and b beyond the threshold. A NaN anywhere, or two boxes without area, never suppresses.
template <typename T>
LIBRA_HD bool suppresses(const NmsBox<T>& a, const NmsBox<T>& b, T threshold, T extent, bool inclusive) {
  const T left = a.x1 > b.x1 ? a.x1 : b.x1, right = a.x2 < b.x2 ? a.x2 : b.x2;
  const T top = a.y1 > b.y1 ? a.y1 : b.y1, bottom = a.y2 < b.y2 ? a.y2 : b.y2;
  const T width = right - left + extent, height = bottom - top + extent;
  const T overlap = width > T(0) && height > T(0) ? rounded_product(width, height) : T(0);
  const T iou = overlap / (a.area + b.area - overlap);
  return inclusive ? iou >= threshold : iou > threshold;
}

}  // namespace detectron_libra
