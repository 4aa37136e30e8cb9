// SPDX-License-Identifier: Apache-2.0
// detectron_libra._math: the scalar formulas of the kernels as NumPy functions, for tests and plots.
// Development only: it is tied to one Python version, and nothing in the package imports it. The formulas of
// an operator are added by csrc/ops/<op>/<op>_math.cpp.
#include "common/math_module.h"

#include "common/elementary.h"

namespace py = pybind11;

namespace detectron_libra {

std::vector<AddFormulas>& math_formulas() {
  static std::vector<AddFormulas> all;
  return all;
}

}  // namespace detectron_libra

PYBIND11_MODULE(_math, m) {
  m.doc() = "Scalar formulas that the CPU and CUDA kernels share, on arrays of any shape.";
  m.def("log1p_nonnegative", py::vectorize([](float x) { return detectron_libra::log1p_nonnegative(x); }),
        "log(1 + x) of float32 x >= 0, as the CPU kernels compute it.", py::arg("x"));
  m.def("exponential", py::vectorize([](float x) { return detectron_libra::exponential(x); }),
        "e^x of float32 x, as the CPU kernels compute it.", py::arg("x"));
  for (const auto add : detectron_libra::math_formulas()) add(m);
}
