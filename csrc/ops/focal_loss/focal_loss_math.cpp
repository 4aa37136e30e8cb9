// SPDX-License-Identifier: Apache-2.0
#include "common/math_module.h"
#include "ops/focal_loss/focal_loss.h"

namespace py = pybind11;
using detectron_libra::SigmoidFocal;

LIBRA_MATH(m) {
  const auto sigmoid = [](double x, bool positive, double alpha, double gamma) {
    return SigmoidFocal<double, false>{alpha, gamma}.at(x, positive);
  };
  m.def("focal_sigmoid_value",
        py::vectorize([=](double x, bool p, double a, double g) { return sigmoid(x, p, a, g).value; }),
        "Sigmoid focal loss of logit x.", py::arg("x"), py::arg("positive"), py::arg("alpha"),
        py::arg("gamma"));
  m.def("focal_sigmoid_slope",
        py::vectorize([=](double x, bool p, double a, double g) { return sigmoid(x, p, a, g).slope; }),
        "Its derivative.", py::arg("x"), py::arg("positive"), py::arg("alpha"), py::arg("gamma"));
  const auto softmax = detectron_libra::softmax_focal<double>;
  m.def("focal_softmax_value",
        py::vectorize([=](double x, bool p, double a, double g) { return softmax(x, p, a, g).value; }),
        "Softmax focal loss at log-probability x.", py::arg("x"), py::arg("positive"), py::arg("alpha"),
        py::arg("gamma"));
  m.def("focal_softmax_slope",
        py::vectorize([=](double x, bool p, double a, double g) { return softmax(x, p, a, g).slope; }),
        "Its derivative.", py::arg("x"), py::arg("positive"), py::arg("alpha"), py::arg("gamma"));
}
