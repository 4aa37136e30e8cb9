// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "common/math_module.h"
#include "ops/pyramid/pyramid.h"

namespace py = pybind11;

namespace {
using Rule = detectron_libra::Range (*)(int64_t, int64_t, int64_t);

// A rule that gives a range becomes two functions, of its first cell and of the one after its last.
template <Rule kRule>
void def_range(py::module_& m, const char* begin, const char* end) {
  const auto first = [](int64_t k, int64_t n, int64_t out) { return kRule(k, n, out).begin; };
  const auto last = [](int64_t k, int64_t n, int64_t out) { return kRule(k, n, out).end; };
  m.def(begin, py::vectorize(first), py::arg("k"), py::arg("n"), py::arg("m"));
  m.def(end, py::vectorize(last), py::arg("k"), py::arg("n"), py::arg("m"));
}
}  // namespace

LIBRA_MATH(m) {
  def_range<detectron_libra::window>(m, "pyramid_window_begin", "pyramid_window_end");
  def_range<detectron_libra::copies>(m, "pyramid_copies_begin", "pyramid_copies_end");
  const auto nearest = [](int64_t k, int64_t n, int64_t out) { return detectron_libra::nearest(k, n, out); };
  m.def("pyramid_nearest", py::vectorize(nearest), "Cell of n that cell k of m copies.", py::arg("k"),
        py::arg("n"), py::arg("m"));
}
