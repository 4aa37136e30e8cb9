// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where RoIAlign samples: the level of a box, the grid inside it, and the cells and weights of one sample on
// one axis. Mask R-CNN (arXiv:1703.06870, section 3) and FPN (arXiv:1612.03144, eq. 1). All coordinates in
// float32.
#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace detectron_libra {

struct RoiAlignOptions {
  int output_size, sampling_ratio;
  bool aligned;
  float canonical_scale;
  int canonical_level, min_level;
  float extent;
};

// An adaptive grid is no denser: a box far larger than any image must not keep a kernel busy for minutes.
constexpr float kMaxGrid = 128;

// Index into `levels` levels: the size of the box decides, and a size that is no number gives the finest one.
LIBRA_HD int roi_level(const float* box, const RoiAlignOptions& o, int levels) {
  const float w = fmaxf(box[2] - box[0] + o.extent, 0.0f), h = fmaxf(box[3] - box[1] + o.extent, 0.0f);
  const float above =
      floorf(float(o.canonical_level) + log2f(sqrtf(w * h) / o.canonical_scale + 1e-6f)) - o.min_level;
  if (!(above > 0)) return 0;
  return above < float(levels - 1) ? int(above) : levels - 1;
}

// One axis of a box on its level, in cells.
struct RoiAxis {
  float start, bin;
  int grid;  // samples per bin; 0: none
};

LIBRA_HD RoiAxis roi_axis(float low, float high, float scale, const RoiAlignOptions& o) {
  if (!(low - low == 0 && high - high == 0)) return {0, 0, 0};  // infinite or NaN
  const float shift = o.aligned ? 0.5f : 0.0f;
  const float start = low * scale - shift;
  float size = high * scale - shift - start;
  if (!o.aligned) size = fmaxf(size, 1.0f);
  const float bin = size / float(o.output_size);
  const int grid = o.sampling_ratio > 0 ? o.sampling_ratio : int(fmaxf(fminf(ceilf(bin), kMaxGrid), 0.0f));
  return {start, bin, grid};
}

struct Roi {
  RoiAxis y, x;
  int level;

  LIBRA_HD bool empty() const { return y.grid == 0 || x.grid == 0; }
  LIBRA_HD int count() const { return empty() ? 1 : y.grid * x.grid; }
};

// `scales`: cells per pixel of each level.
LIBRA_HD Roi roi_of(const float* box, const RoiAlignOptions& o, const float* scales, int levels) {
  const int level = roi_level(box, o, levels);
  return {roi_axis(box[1], box[3], scales[level], o), roi_axis(box[0], box[2], scales[level], o), level};
}

// The two cells that a sample reads on one axis, and their weights; low = -1 more than one cell outside.
struct Sample {
  int low, high;
  float low_weight, high_weight;
};

// Sample i of bin b on an axis of `length` cells.
LIBRA_HD Sample roi_sample(const RoiAxis& axis, int b, int i, int64_t length) {
  float at = axis.start + float(b) * axis.bin + (float(i) + 0.5f) * axis.bin / float(axis.grid);
  if (!(at >= -1.0f && at <= float(length))) return {-1, -1, 0, 0};
  at = fmaxf(at, 0.0f);
  const int low = int(at), last = int(length) - 1;
  if (low >= last) return {last, last, 1, 0};
  return {low, low + 1, 1.0f - (at - float(low)), at - float(low)};
}

// Weight of one cell in bin b of an axis: the sum over the bin's samples.
LIBRA_HD float roi_weight(const RoiAxis& axis, int b, int64_t cell, int64_t length) {
  float weight = 0;
  for (int i = 0; i < axis.grid; ++i) {
    const Sample s = roi_sample(axis, b, i, length);
    if (s.low == cell) weight += s.low_weight;
    if (s.high == cell) weight += s.high_weight;
  }
  return weight;
}

// Whether samples of the axis can read cells of [begin, end); may say yes by a margin.
LIBRA_HD bool roi_touches(const RoiAxis& axis, const RoiAlignOptions& o, int64_t begin, int64_t end,
                          int64_t length) {
  const float stop = axis.start + axis.bin * float(o.output_size), last = float(length - 1);
  const float low = fminf(fmaxf(fminf(axis.start, stop) - 2.0f, 0.0f), last);
  const float high = fminf(fmaxf(fmaxf(axis.start, stop) + 2.0f, 0.0f), last);
  return low < float(end) && high >= float(begin);
}

}  // namespace detectron_libra
