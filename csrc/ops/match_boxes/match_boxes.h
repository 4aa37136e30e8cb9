// SPDX-License-Identifier: Apache-2.0
#pragma once
// Overlap of two boxes, with the operations and their order of the reference: results are equal bit for bit.
#include "common/host_device.h"

namespace detectron_libra {

// Added below a quotient of areas, in square pixels: two boxes without area have an overlap of 0.
constexpr float kSmallestArea = 1e-6f;

// A product that nvcc does not contract with a sum.
LIBRA_HD float product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// A NaN stays one.
LIBRA_HD float at_least(float x, float least) { return x < least ? least : x; }
LIBRA_HD float smaller(float a, float b) { return a < b ? a : b; }
LIBRA_HD float larger(float a, float b) { return a > b ? a : b; }

// Pixels; extent is what is added to x2 - x1 to get a width.
struct MatchBox {
  float x1, y1, x2, y2;

  LIBRA_HD float area(float extent) const {
    return product(at_least(x2 - x1 + extent, 0.0f), at_least(y2 - y1 + extent, 0.0f));
  }
};

LIBRA_HD float intersection(const MatchBox& a, const MatchBox& b, float extent) {
  const float width = smaller(a.x2, b.x2) - larger(a.x1, b.x1) + extent;
  const float height = smaller(a.y2, b.y2) - larger(a.y1, b.y1) + extent;
  return product(at_least(width, 0.0f), at_least(height, 0.0f));
}

// Intersection over union, areas given; 0 where a coordinate is NaN.
LIBRA_HD float overlap(const MatchBox& box, float box_area, const MatchBox& gt, float gt_area, float extent) {
  const float shared = intersection(box, gt, extent);
  const float iou = shared / at_least(box_area + gt_area - shared, kSmallestArea);
  return iou > 0.0f ? iou : 0.0f;
}

// Share of the box that lies inside a region; 0 where a coordinate of the box is NaN.
LIBRA_HD float share_inside(float shared, float box_area) {
  const float share = shared / at_least(box_area, kSmallestArea);
  return share > 0.0f ? share : 0.0f;
}

}  // namespace detectron_libra
