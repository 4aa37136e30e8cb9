// SPDX-License-Identifier: Apache-2.0
#include "common/math_module.h"
#include "ops/roi_align/roi_align.h"

namespace py = pybind11;

namespace {
using namespace detectron_libra;

int level(float x1, float y1, float x2, float y2, float canonical_scale, int canonical_level, int min_level,
          float extent, int levels) {
  const float box[] = {x1, y1, x2, y2};
  return roi_level(box, {1, 1, true, canonical_scale, canonical_level, min_level, extent}, levels);
}

RoiAxis axis(float low, float high, float scale, int output_size, int sampling_ratio, bool aligned) {
  return roi_axis(low, high, scale, {output_size, sampling_ratio, aligned, 224, 4, 2, 0});
}

// Sample 0 of an axis with one bin, placed so that it lies at `at`.
Sample sample(float at, int64_t length) { return roi_sample({at, 0, 1}, 0, 0, length); }

float weight(float start, float bin, int grid, int b, int64_t cell, int64_t length) {
  return roi_weight({start, bin, grid}, b, cell, length);
}

bool touches(float start, float bin, int output_size, int64_t begin, int64_t end, int64_t length) {
  return roi_touches({start, bin, 1}, {output_size, 1, true, 224, 4, 2, 0}, begin, end, length);
}

template <typename R, typename... Args, typename Get>
auto part(R (*f)(Args...), Get get) {
  return py::vectorize([f, get](Args... args) { return get(f(args...)); });
}
}  // namespace

LIBRA_MATH(m) {
  m.def("roi_level", py::vectorize(level), "Index of the level of a box in pixels.");
  m.def("roi_axis_start", part(axis, [](const RoiAxis& a) { return a.start; }),
        "Where the bins begin, cells.");
  m.def("roi_axis_bin", part(axis, [](const RoiAxis& a) { return a.bin; }), "Length of a bin, cells.");
  m.def("roi_axis_grid", part(axis, [](const RoiAxis& a) { return a.grid; }), "Samples per bin.");
  m.def("roi_sample_low", part(sample, [](const Sample& s) { return s.low; }),
        "The first cell that a sample reads, -1 for none.");
  m.def("roi_sample_high", part(sample, [](const Sample& s) { return s.high; }), "The second cell.");
  m.def("roi_sample_low_weight", part(sample, [](const Sample& s) { return s.low_weight; }),
        "Weight of the first cell.");
  m.def("roi_sample_high_weight", part(sample, [](const Sample& s) { return s.high_weight; }),
        "Weight of the second cell.");
  m.def("roi_weight", py::vectorize(weight), "Sum of the weights of a cell over the samples of a bin.");
  m.def("roi_touches", py::vectorize(touches), "False only where no sample reads a cell of [begin, end).");
}
