// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "common/math_module.h"
#include "ops/balanced_l1/balanced_l1.h"

namespace py = pybind11;

namespace {
template <template <typename> class Form>
void def_loss(py::module_& m, const std::string& name) {
  const auto value = [](double x, double alpha, double gamma, double beta) {
    return detectron_libra::term_at(Form<double>(alpha, gamma, beta), x).value;
  };
  const auto slope = [](double x, double alpha, double gamma, double beta) {
    return detectron_libra::term_at(Form<double>(alpha, gamma, beta), x).slope;
  };
  m.def((name + "_value").c_str(), py::vectorize(value), "Loss at residual x, float64.", py::arg("x"),
        py::arg("alpha"), py::arg("gamma"), py::arg("beta"));
  m.def((name + "_slope").c_str(), py::vectorize(slope), "Derivative of the loss at residual x, float64.",
        py::arg("x"), py::arg("alpha"), py::arg("gamma"), py::arg("beta"));
}
}  // namespace

LIBRA_MATH(m) {
  def_loss<detectron_libra::BalancedL1>(m, "balanced_l1");
  def_loss<detectron_libra::ReleasedBalancedL1>(m, "balanced_l1_released");
  def_loss<detectron_libra::SmoothL1>(m, "smooth_l1");
}
