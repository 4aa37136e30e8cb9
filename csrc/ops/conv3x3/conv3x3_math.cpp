// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include "common/math_module.h"
#include "ops/conv3x3/winograd.h"

namespace py = pybind11;

namespace {
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;

// M X M' of the square matrix X.
template <const auto& kMatrix>
Array transformed(const Array& x) {
  if (x.ndim() != 2 || x.shape(0) != kMatrix.cols || x.shape(1) != kMatrix.cols)
    throw std::invalid_argument("x must be square, as large as the matrix is wide");
  Array out({kMatrix.rows, kMatrix.rows});
  detectron_libra::transform<kMatrix>(x.data(), out.mutable_data());
  return out;
}

template <int kTile>
void def_tile(py::module_& m, const char* input, const char* weight, const char* output) {
  using M = detectron_libra::Maps<kTile>;
  m.def(input, &transformed<M::input>, "B' d B of the inputs of a tile.", py::arg("x"));
  m.def(weight, &transformed<M::weight>, "G g G' of a 3x3 filter.", py::arg("x"));
  m.def(output, &transformed<M::output>, "A' m A of the products of a tile.", py::arg("x"));
}
}  // namespace

LIBRA_MATH(m) {
  def_tile<2>(m, "winograd2_input", "winograd2_weight", "winograd2_output");
  def_tile<4>(m, "winograd4_input", "winograd4_weight", "winograd4_output");
}
