// SPDX-License-Identifier: Apache-2.0
#include "common/math_module.h"
#include "ops/sample_by_iou/sample_by_iou.h"

namespace py = pybind11;

LIBRA_MATH(m) {
  using namespace detectron_libra;
  m.def("sample_key_code", py::vectorize([](float key) { return key_code(key); }),
        "A key as the integer that is sorted, 0..2^31.", py::arg("key"));
  m.def("sample_second_code", py::vectorize([](uint32_t code) { return second_code(code); }),
        "24 bits stirred from a key's integer.", py::arg("code"));
  m.def("sample_interval_of", py::vectorize([](float iou, float low, float high, int64_t bins) {
          return parts_of(low, high, bins).of(iou);
        }),
        "Which of `bins` parts of [low, high) holds the IoU; bins for none.", py::arg("iou"), py::arg("low"),
        py::arg("high"), py::arg("bins"));
  m.def("sample_low_set", py::vectorize([](float iou, double floor) { return LowSet(floor).has(iou); }),
        "Whether a box of this IoU is drawn apart.", py::arg("iou"), py::arg("floor"));
  m.def("sample_instance_share",
        py::vectorize([](int64_t num, int64_t instances) { return instance_share(num, instances); }),
        "Most boxes that one ground truth gives.", py::arg("num"), py::arg("instances"));
}
