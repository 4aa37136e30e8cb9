// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where balanced_l1 on the raw outputs of a head finds its numbers: index rules and the encoding of a box.
// A location is n * M + m, image n and anchor m; anchors are ordered by level, row, column, anchor of the
// cell.
#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace detectron_libra {

// Levels that fit into the arguments of one launch.
constexpr int kMostLevels = 16;

// One level (N, 4A, H, W): the anchors before it, and steps in elements.
struct LevelPlace {
  int64_t first, image, channel, cell;
};

// The four numbers of an anchor: the level, the first of them, and the step from one to the next.
struct DeltaPlace {
  int level;
  int64_t offset, step;
};

struct LevelIndex {
  int count;
  int64_t images, anchors, per_cell;  // N, M and A
  LevelPlace levels[kMostLevels];

  LIBRA_HD int64_t locations() const { return images * anchors; }

  // Levels are added in order, from `anchors` = 0 on.
  void add_level(int level, int64_t cells, bool planar) {
    const int64_t channels = 4 * per_cell;
    levels[level] = {anchors, channels * cells, planar ? cells : 1, planar ? 1 : channels};
    anchors += cells * per_cell;
  }

  LIBRA_HD DeltaPlace at(int64_t location) const {
    const int64_t image = location / anchors, anchor = location - image * anchors;
    int level = 0;
    while (level + 1 < count && anchor >= levels[level + 1].first) ++level;
    const LevelPlace& place = levels[level];
    const int64_t row = anchor - place.first, cell = row / per_cell;
    const int64_t channel = 4 * (row - cell * per_cell);
    return {level, image * place.image + cell * place.cell + channel * place.channel, place.channel};
  }
};

// What slot k asks for: the box to learn at a location. Location -1: nothing.
struct Slot {
  int64_t location;
  const float* box;
};

// Either a list, slot k being (locations[k], boxes[k]), or, where `locations` is null, one slot a location:
// used where `positive`, with row index[k] of the image's `rows` boxes. What lies outside is left out.
struct Positives {
  const int64_t* locations;
  const bool* positive;
  const int64_t* index;
  const float* boxes;
  int64_t rows;

  LIBRA_HD Slot at(int64_t k, const LevelIndex& levels) const {
    if (locations != nullptr) {
      const int64_t location = locations[k];
      return {location >= 0 && location < levels.locations() ? location : -1, boxes + 4 * k};
    }
    if (!positive[k]) return {-1, nullptr};
    const int64_t row = index[k];
    if (row < 0 || row >= rows) return {-1, nullptr};
    return {k, boxes + 4 * (k / levels.anchors * rows + row)};
  }
};

// Sides below this many pixels count as this long, so that padding rows encode to finite numbers.
constexpr double kSmallestSide = 1e-4;

template <typename C>
LIBRA_HD C side(C low, C high, C extent) {
  const C length = high - low + extent;
  return length < C(kSmallestSide) ? C(kSmallestSide) : length;
}

// (dx, dy, dw, dh) that make `box` into `target`, both x1 y1 x2 y2 in pixels; `extent` pixels are added to
// x2 - x1. Source: Detectron's utils/boxes.py (extent 1), mmdetection's DeltaXYWHBBoxCoder (0).
template <typename C>
LIBRA_HD void encode_deltas(const float* box, const float* target, C extent, C* deltas) {
  for (int axis = 0; axis < 2; ++axis) {
    const C low = box[axis], high = box[axis + 2], to_low = target[axis], to_high = target[axis + 2];
    const C length = side(low, high, extent);
    const C centre = low + C(0.5) * (high - low + extent);
    const C to_centre = to_low + C(0.5) * (to_high - to_low + extent);
    deltas[axis] = (to_centre - centre) / length;
    deltas[axis + 2] = std::log(side(to_low, to_high, extent) / length);
  }
}

}  // namespace detectron_libra
