// SPDX-License-Identifier: Apache-2.0
#include "common/math_module.h"
#include "ops/nms/nms.h"
#include "ops/nms/soft_nms.h"
#include "ops/nms/vote.h"

namespace py = pybind11;
using namespace detectron_libra;

namespace {
NmsBox<float> box_of(float x1, float y1, float x2, float y2, float extent) {
  const float corners[4] = {x1, y1, x2, y2};
  return nms_box(corners, extent);
}

float iou(float ax1, float ay1, float ax2, float ay2, float bx1, float by1, float bx2, float by2,
          float extent) {
  return box_iou(box_of(ax1, ay1, ax2, ay2, extent), box_of(bx1, by1, bx2, by2, extent), extent);
}

template <int kMethod>
double weight(double iou, double sigma, double overlap_threshold) {
  return soft_rule<double>(sigma, overlap_threshold, 0, 0).weight<kMethod>(iou);
}
}  // namespace

LIBRA_MATH(m) {
  m.def("nms_iou", py::vectorize(iou), "IoU of boxes a and b, float32, as nms compares it.");
  m.def("nms_reach_low", py::vectorize([](float first, float side, float threshold, float extent) {
          return corner_reach(first, side, threshold, extent).low;
        }),
        "Lowest first corner, along an axis, of a box that can reach the threshold.", py::arg("first"),
        py::arg("side"), py::arg("threshold"), py::arg("extent"));
  m.def("nms_reach_high", py::vectorize([](float first, float side, float threshold, float extent) {
          return corner_reach(first, side, threshold, extent).high;
        }),
        "Highest first corner, along an axis, of a box that can reach the threshold.", py::arg("first"),
        py::arg("side"), py::arg("threshold"), py::arg("extent"));
  m.def("soft_weight_linear", py::vectorize(weight<kLinear>), "Weight at an IoU above 0, float64.",
        py::arg("iou"), py::arg("sigma"), py::arg("overlap_threshold"));
  m.def("soft_weight_gaussian", py::vectorize(weight<kGaussian>), "Weight at an IoU above 0, float64.",
        py::arg("iou"), py::arg("sigma"), py::arg("overlap_threshold"));
  m.def("soft_weight_hard", py::vectorize(weight<kHard>), "Weight at an IoU above 0, float64.",
        py::arg("iou"), py::arg("sigma"), py::arg("overlap_threshold"));
  m.def("vote_tempered", py::vectorize(tempered), "Probability p at temperature beta.", py::arg("p"),
        py::arg("beta"));
}
