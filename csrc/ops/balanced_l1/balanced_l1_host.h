// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the CPU and the CUDA kernel share on the host side: checks of the arguments and the choice of the
// form.
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <tuple>

#include "common/allocate.h"
#include "common/checks.h"
#include "common/layout.h"
#include "common/sum.h"
#include "ops/balanced_l1/balanced_l1.h"

namespace detectron_libra {

// Whether the elements lie in memory without a gap: in row-major order, or in that of channels_last.
inline bool is_dense(const torch::stable::Tensor& t) {
  return t.is_contiguous() || (t.dim() == 4 && is_channels_last(t));
}

// `t` itself where its elements lie in memory in the order of `like`, which is dense; otherwise a copy in
// that order.
inline torch::stable::Tensor in_order_of(const torch::stable::Tensor& like, const torch::stable::Tensor& t) {
  if (like.is_contiguous() ? t.is_contiguous() : is_channels_last(t)) return t;
  torch::stable::Tensor copy = torch::stable::empty_like(like);
  torch::stable::copy_(copy, t);
  return copy;
}

// pred, target and weight in one memory order.
struct LossInputs {
  torch::stable::Tensor pred, target;
  std::optional<torch::stable::Tensor> weight;

  template <typename T>
  const T* weight_ptr() const {
    return weight.has_value() ? weight->const_data_ptr<T>() : nullptr;
  }
};

inline LossInputs checked_inputs(const torch::stable::Tensor& pred, const torch::stable::Tensor& target,
                                 const std::optional<torch::stable::Tensor>& weight) {
  check_floating(pred, "pred");
  check_same(pred, "pred", target, "target");
  if (weight.has_value()) check_same(pred, "pred", *weight, "weight");
  LossInputs in{is_dense(pred) ? pred : torch::stable::contiguous(pred), pred, std::nullopt};
  in.target = in_order_of(in.pred, target);
  if (weight.has_value()) in.weight = in_order_of(in.pred, *weight);
  return in;
}

// The incoming gradient, of pred's dtype and shape, in its order.
inline torch::stable::Tensor grad_in_order(const torch::stable::Tensor& grad, const LossInputs& in) {
  check_same(grad, "grad", in.pred, "pred");
  return in_order_of(in.pred, grad);
}

// Room for the sum and for the gradient: of pred's shape, or without an element where none is wanted.
inline std::tuple<torch::stable::Tensor, torch::stable::Tensor> empty_sum(const LossInputs& in,
                                                                          bool with_gradient) {
  const int64_t none = 0, one = 1;
  return {allocate_number(in.pred, sum_dtype(in.pred)),
          with_gradient ? allocate_like(in.pred) : allocate(in.pred, 1, &none, &one, in.pred.scalar_type())};
}

// body(f) with the functor of the form, computing in T.
template <typename T, typename Body>
void with_form(int64_t form, double alpha, double gamma, double beta, const Body& body) {
  switch (form) {
    case kPaper:
      return body(BalancedL1<T>(alpha, gamma, beta));
    case kReleased:
      return body(ReleasedBalancedL1<T>(alpha, gamma, beta));
    case kSmoothL1:
      return body(SmoothL1<T>(alpha, gamma, beta));
    default:
      STD_TORCH_CHECK(false, "form must be 0 (paper), 1 (released) or 2 (smooth L1), not ", form);
  }
}

}  // namespace detectron_libra
