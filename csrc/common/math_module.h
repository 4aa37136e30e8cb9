// SPDX-License-Identifier: Apache-2.0
#pragma once
// How csrc/ops/<op>/<op>_math.cpp adds its formulas to detectron_libra._math: LIBRA_MATH(m) { m.def(…); }
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

namespace detectron_libra {

using AddFormulas = void (*)(pybind11::module_&);

std::vector<AddFormulas>& math_formulas();

struct RegisterFormulas {
  explicit RegisterFormulas(AddFormulas add) { math_formulas().push_back(add); }
};

}  // namespace detectron_libra

#define LIBRA_MATH(m)                                                         \
  static void add_formulas(pybind11::module_& m);                             \
  static const detectron_libra::RegisterFormulas register_them(add_formulas); \
  static void add_formulas(pybind11::module_& m)
