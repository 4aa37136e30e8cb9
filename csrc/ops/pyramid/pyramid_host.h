// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the CPU and the CUDA side of the pyramid operators share: checks, formats and allocation.
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "common/checks.h"
#include "common/layout.h"
#include "ops/pyramid/pyramid.h"

namespace detectron_libra {

// Where in their windows the maxima lie: uint8 or int32; no data where nobody asks.
struct Positions {
  void* data;
  bool wide;

  LIBRA_HD void set(int64_t i, int32_t value) const {
    if (wide)
      static_cast<int32_t*>(data)[i] = value;
    else
      static_cast<uint8_t*>(data)[i] = uint8_t(value);
  }
  LIBRA_HD int32_t get(int64_t i) const {
    return wide ? static_cast<const int32_t*>(data)[i] : int32_t(static_cast<const uint8_t*>(data)[i]);
  }
};

inline Positions positions_of(const torch::stable::Tensor& argmax) {
  return {argmax.data_ptr(), argmax.element_size() == sizeof(int32_t)};
}

// Room for the positions of the maxima when `from` is pooled to the size of `to`.
inline torch::stable::Tensor empty_positions(const torch::stable::Tensor& from,
                                             const torch::stable::Tensor& to, bool channels_last) {
  const int64_t cells = largest_window(from.size(2), to.size(2)) * largest_window(from.size(3), to.size(3));
  const auto dtype = cells <= 256 ? torch::headeronly::ScalarType::Byte : torch::headeronly::ScalarType::Int;
  return empty_in_format(to, sizes_of(to), dtype, channels_last);
}

inline void check_refine(int64_t refine, int64_t levels) {
  STD_TORCH_CHECK(refine >= 0 && refine < levels, "refine must be an index into the ", levels,
                  " levels, got ", refine);
}

struct Integration {
  bool channels_last;
  TensorList levels;
  torch::stable::Tensor out;
  TensorList argmax;  // of levels before `refine`, or none

  const torch::stable::Tensor* positions(int64_t l) const { return argmax.empty() ? nullptr : &argmax[l]; }
};

inline Integration prepare_integrate(const TensorList& levels, int64_t refine, bool positions) {
  check_pyramid(levels, "levels");
  check_refine(refine, int64_t(levels.size()));
  const bool last = any_channels_last(levels);
  Integration job{last, in_format(levels, last), {}, {}};
  job.out = empty_in_format(levels[refine], sizes_of(levels[refine]), levels[refine].scalar_type(), last);
  for (int64_t i = 0; positions && i < refine; ++i)
    job.argmax.push_back(empty_positions(levels[i], job.out, last));
  return job;
}

using OptionalTensors = std::vector<std::optional<torch::stable::Tensor>>;

struct IntegrationGrad {
  bool channels_last;
  torch::stable::Tensor grad;
  OptionalTensors passed;  // added to the gradients of the levels; empty, or one per level
  TensorList argmax;
  TensorList grads;  // one per level

  template <typename T>
  const T* passed_ptr(size_t l) const {
    return l < passed.size() && passed[l].has_value() ? passed[l]->template const_data_ptr<T>() : nullptr;
  }
};

inline void check_passed(const torch::stable::Tensor& passed, const std::vector<int64_t>& shape,
                         const torch::stable::Tensor& grad) {
  STD_TORCH_CHECK(sizes_of(passed) == shape, "passed must have the shapes of the levels");
  STD_TORCH_CHECK(passed.scalar_type() == grad.scalar_type(), "passed and grad must have the same dtype");
  check_same_device(passed, "passed", grad, "grad");
}

// `sizes`: H and W of each level in turn.
inline IntegrationGrad prepare_integrate_backward(const torch::stable::Tensor& grad,
                                                  const OptionalTensors& passed, const TensorList& argmax,
                                                  const std::vector<int64_t>& sizes, int64_t refine) {
  check_pyramid({grad}, "grad");
  const size_t count = sizes.size() / 2;
  check_refine(refine, int64_t(count));
  STD_TORCH_CHECK(int64_t(argmax.size()) == refine, "argmax must hold one tensor per level before refine");
  STD_TORCH_CHECK(passed.empty() || passed.size() == count,
                  "passed must be empty or hold one per level, got ", passed.size(), " for ", count,
                  " levels");
  const bool last = any_channels_last({grad}) || any_channels_last(argmax);
  IntegrationGrad job{last, in_format(grad, last), {}, in_format(argmax, last), {}};
  for (size_t l = 0; l < count; ++l) {
    const std::vector<int64_t> shape = {grad.size(0), grad.size(1), sizes[2 * l], sizes[2 * l + 1]};
    job.grads.push_back(empty_in_format(grad, shape, grad.scalar_type(), last));
    if (passed.empty()) continue;
    job.passed.emplace_back();
    if (!passed[l].has_value()) continue;
    check_passed(*passed[l], shape, grad);
    job.passed.back() = in_format(*passed[l], last);
  }
  return job;
}

struct Strengthening {
  bool channels_last;
  TensorList levels;
  torch::stable::Tensor refined;
  TensorList out;
  TensorList argmax;  // of levels after `refine`
};

inline Strengthening prepare_strengthen(const TensorList& levels, const torch::stable::Tensor& refined,
                                        int64_t refine) {
  check_pyramid(levels, "levels");
  check_refine(refine, int64_t(levels.size()));
  STD_TORCH_CHECK(refined.sizes().equals(levels[refine].sizes()),
                  "refined must have the shape of levels[refine]");
  check_pyramid({levels[0], refined}, "levels and refined");
  TensorList all = levels;
  all.push_back(refined);
  const bool last = any_channels_last(all);
  Strengthening job{last, in_format(levels, last), in_format(refined, last), {}, {}};
  for (size_t i = 0; i < levels.size(); ++i) {
    job.out.push_back(empty_in_format(levels[i], sizes_of(levels[i]), levels[i].scalar_type(), last));
    if (int64_t(i) > refine) job.argmax.push_back(empty_positions(refined, levels[i], last));
  }
  return job;
}

struct StrengtheningGrad {
  bool channels_last;
  TensorList grads;
  TensorList argmax;
  torch::stable::Tensor grad_refined;
};

inline StrengtheningGrad prepare_strengthen_backward(const TensorList& grads, const TensorList& argmax,
                                                     int64_t refine) {
  check_pyramid(grads, "grads");
  check_refine(refine, int64_t(grads.size()));
  STD_TORCH_CHECK(argmax.size() + refine + 1 == grads.size(),
                  "argmax must hold one tensor per level after refine");
  const bool last = any_channels_last(grads) || any_channels_last(argmax);
  return {last, in_format(grads, last), in_format(argmax, last),
          empty_in_format(grads[refine], sizes_of(grads[refine]), grads[refine].scalar_type(), last)};
}

}  // namespace detectron_libra
