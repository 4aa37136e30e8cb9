// SPDX-License-Identifier: Apache-2.0
// detectron_libra._math: the scalar formulas of the kernels as NumPy functions, for tests and plots.
// Development only: it is tied to one Python version, and nothing in the package imports it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "ops/balanced_l1/balanced_l1.h"

namespace py = pybind11;

namespace {
template <template <typename> class Form>
void def_loss(py::module_& m, const char* name) {
  const auto value = [](double x, double alpha, double gamma, double beta) {
    return Form<double>(alpha, gamma, beta).value(x);
  };
  const auto slope = [](double x, double alpha, double gamma, double beta) {
    return Form<double>(alpha, gamma, beta).slope(x);
  };
  const std::string stem(name);
  m.def((stem + "_value").c_str(), py::vectorize(value), "Loss at residual x.", py::arg("x"),
        py::arg("alpha"), py::arg("gamma"), py::arg("beta"));
  m.def((stem + "_slope").c_str(), py::vectorize(slope), "Derivative of the loss at residual x.",
        py::arg("x"), py::arg("alpha"), py::arg("gamma"), py::arg("beta"));
}
}  // namespace

PYBIND11_MODULE(_math, m) {
  m.doc() = "Scalar formulas that the CPU and CUDA kernels share, on float64 arrays of any shape.";
  def_loss<detectron_libra::BalancedL1>(m, "balanced_l1");
  def_loss<detectron_libra::ReleasedBalancedL1>(m, "balanced_l1_released");
  def_loss<detectron_libra::SmoothL1>(m, "smooth_l1");
}
