// SPDX-License-Identifier: Apache-2.0
#pragma once
// Loss of one residual x = pred - target and its slope, for the three forms of the operator.
// Compiled by the CPU kernel, the CUDA kernel and detectron_libra._math, so that they cannot drift apart.
#include <cmath>
#include <cstdint>

#include "common/elementary.h"
#include "common/host_device.h"

namespace detectron_libra {

// Numbers that the Python side passes as `form`.
enum LossForm : int64_t { kPaper = 0, kReleased = 1, kSmoothL1 = 2 };

// A loss and its derivative; they share a logarithm.
template <typename T>
struct Term {
  T value, slope;
};

template <typename T>
LIBRA_HD T magnitude(T x) {
  return x < T(0) ? -x : x;
}

// slope * sign(x): 0 at x = 0, NaN for NaN, whatever the one-sided slope is.
template <typename T>
LIBRA_HD T with_sign(T x, T slope) {
  const T sided = x > T(0) ? slope : (x < T(0) ? -slope : T(0));
  return x != x ? x : sided;
}

// Libra R-CNN (arXiv:1904.02701) eq. 8-9: the integral of alpha * ln(b |x| / beta + 1), which reaches gamma
// at |x| = beta. The inner formula never sees a residual beyond beta, so an infinite one never meets 0 * inf;
// a NaN takes the outer formula. Both are selected between, not branched to: that is what vectorises.
template <typename T>
struct BalancedL1 {
  T alpha, gamma, beta;
  T b;  // e^(gamma / alpha) - 1: makes the slope continuous at |x| = beta
  T steepness, scale, outer;

  BalancedL1(double alpha, double gamma, double beta)
      : alpha(T(alpha)), gamma(T(gamma)), beta(T(beta)), b(T(std::expm1(gamma / alpha))) {
    steepness = T(std::expm1(gamma / alpha) / beta);
    scale = T(alpha / std::expm1(gamma / alpha));
    outer = T(gamma * beta / std::expm1(gamma / alpha) - alpha * beta);
  }

  LIBRA_HD Term<T> at(T x) const {
    const T a = magnitude(x);
    const bool inside = a < beta;
    const T near = inside ? a : T(0);
    const T log = log1p_nonnegative(steepness * near);
    const T inner = scale * (b * near + beta) * log - alpha * near;
    return {inside ? inner : gamma * a + outer, with_sign(x, inside ? alpha * log : gamma)};
  }
};

// The formula of the published code (OceanPang/Libra_R-CNN, mmdetection). Equal to the paper's at beta = 1;
// elsewhere its slope jumps at 0 and at beta, because b is not divided by beta. Kept for published weights
// and numbers.
template <typename T>
struct ReleasedBalancedL1 {
  T alpha, gamma, beta, b;
  T steepness, scale, outer;

  ReleasedBalancedL1(double alpha, double gamma, double beta)
      : alpha(T(alpha)), gamma(T(gamma)), beta(T(beta)), b(T(std::expm1(gamma / alpha))) {
    steepness = T(std::expm1(gamma / alpha) / beta);
    scale = T(alpha / std::expm1(gamma / alpha));
    outer = T(gamma / std::expm1(gamma / alpha) - alpha * beta);
  }

  LIBRA_HD Term<T> at(T x) const {
    const T a = magnitude(x);
    const bool inside = a < beta;
    const T near = inside ? a : T(0);
    const T log = log1p_nonnegative(steepness * near);
    const T inner = scale * (b * near + T(1)) * log - alpha * near;
    const T slope = alpha * log + alpha * (b * near + T(1)) / (b * near + beta) - alpha;
    return {inside ? inner : gamma * a + outer, with_sign(x, inside ? slope : gamma)};
  }
};

// Smooth L1 (Fast R-CNN, arXiv:1504.08083 eq. 3) with the quadratic part in |x| < beta; beta = 0 is L1.
template <typename T>
struct SmoothL1 {
  T beta;

  SmoothL1(double, double, double beta) : beta(T(beta)) {}

  LIBRA_HD Term<T> at(T x) const {
    const T a = magnitude(x);
    const bool inside = a < beta;
    return {inside ? T(0.5) * a * a / beta : a - T(0.5) * beta, with_sign(x, inside ? a / beta : T(1))};
  }
};

// `term` times a weight. A weight of 0 leaves the element out, whatever it holds.
template <typename T>
LIBRA_HD Term<T> weighted(Term<T> term, T weight) {
  return {weight == T(0) ? T(0) : weight * term.value, weight == T(0) ? T(0) : weight * term.slope};
}

}  // namespace detectron_libra
