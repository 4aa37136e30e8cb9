// SPDX-License-Identifier: Apache-2.0
#include "common/math_module.h"
#include "ops/match_boxes/match_boxes.h"

namespace py = pybind11;
using detectron_libra::MatchBox;

LIBRA_MATH(m) {
  m.def("match_overlap",
        py::vectorize([](float x1, float y1, float x2, float y2, float gx1, float gy1, float gx2, float gy2,
                         float extent) {
          const MatchBox box{x1, y1, x2, y2}, gt{gx1, gy1, gx2, gy2};
          return detectron_libra::overlap(box, box.area(extent), gt, gt.area(extent), extent);
        }),
        "Intersection over union of two boxes, float32.");
  m.def("match_share_inside",
        py::vectorize([](float x1, float y1, float x2, float y2, float gx1, float gy1, float gx2, float gy2,
                         float extent) {
          const MatchBox box{x1, y1, x2, y2}, region{gx1, gy1, gx2, gy2};
          return detectron_libra::share_inside(detectron_libra::intersection(box, region, extent),
                                               box.area(extent));
        }),
        "Share of the first box inside the second, float32.");
}
