// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <array>

#include "common/math_module.h"
#include "ops/balanced_l1/on_levels.h"

namespace py = pybind11;
using detectron_libra::LevelIndex;

namespace {
using Shape = std::array<int64_t, 2>;  // H, W

std::array<double, 4> encode(const std::array<float, 4>& box, const std::array<float, 4>& target,
                             double extent) {
  std::array<double, 4> deltas;
  detectron_libra::encode_deltas<double>(box.data(), target.data(), extent, deltas.data());
  return deltas;
}

py::tuple place(int64_t location, int64_t images, int64_t per_cell, const std::vector<Shape>& shapes,
                bool channels_last) {
  LevelIndex index{int(shapes.size()), images, 0, per_cell, {}};
  for (size_t i = 0; i < shapes.size(); ++i)
    index.add_level(int(i), shapes[i][0] * shapes[i][1], !channels_last);
  const auto found = index.at(location);
  return py::make_tuple(found.level, found.offset, found.step);
}
}  // namespace

LIBRA_MATH(m) {
  m.def("encode_deltas", &encode, "Deltas (4,) of a box (4,) for a target (4,), pixels, in float64.",
        py::arg("box"), py::arg("target"), py::arg("extent"));
  m.def("delta_place", &place,
        "Level, element and step in it of the deltas of a location in levels of sizes (H, W).",
        py::arg("location"), py::arg("images"), py::arg("per_cell"), py::arg("shapes"),
        py::arg("channels_last"));
}
