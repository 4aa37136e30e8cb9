// SPDX-License-Identifier: Apache-2.0
#pragma once
// From a tensor's dtype to `scalar_t`, and from `scalar_t` to the type to compute in.
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

namespace detectron_libra {

// Half types hold inputs and outputs only; sums and formulas run in float32.
template <typename T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace detectron_libra

// Runs the body with scalar_t = double, float, Half or BFloat16.
#define LIBRA_DISPATCH_FLOATING(dtype, name, ...)                                  \
  THO_DISPATCH_V2(dtype, name, AT_WRAP(__VA_ARGS__), AT_EXPAND(AT_FLOATING_TYPES), \
                  torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16)

// Runs the body with scalar_t = double or float.
#define LIBRA_DISPATCH_FLOAT_DOUBLE(dtype, name, ...) \
  THO_DISPATCH_V2(dtype, name, AT_WRAP(__VA_ARGS__), AT_EXPAND(AT_FLOATING_TYPES))
