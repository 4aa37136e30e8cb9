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
  return flip_sign(x, x);
}

// slope * sign(x): 0 at x = 0, NaN for NaN, whatever the one-sided slope is.
template <typename T>
LIBRA_HD T with_sign(T x, T slope) {
  const bool moved = x < T(0) || x > T(0);
  return moved ? flip_sign(slope, x) : x;
}

// |x| below beta, 0 from there on.
template <typename T>
LIBRA_HD T near_part(T x, T beta) {
  const T a = magnitude(x);
  return a < beta ? a : T(0);
}

// Each form says of which argument(x) it wants log(1 + argument), and turns that into its term at(x, log):
// the CPU computes the logarithms of a block in between.

// Libra R-CNN (arXiv:1904.02701) eq. 8-9: the integral of alpha * ln(b |x| / beta + 1), which reaches gamma
// at |x| = beta. The inner formula never sees a residual beyond beta, so an infinite one never meets 0 * inf;
// a NaN takes the outer formula. Both are selected between, not branched to: that is what vectorises.
template <typename T>
struct BalancedL1 {
  static constexpr bool kLogarithm = true;
  T alpha, gamma, beta;
  T steepness, shift, outer;  // b / beta, beta / b and the constant of the outer formula

  BalancedL1(double alpha, double gamma, double beta) : alpha(T(alpha)), gamma(T(gamma)), beta(T(beta)) {
    const double b = std::expm1(gamma / alpha);  // makes the slope continuous at |x| = beta
    steepness = T(b / beta);
    shift = T(beta / b);
    outer = T(gamma * beta / b - alpha * beta);
  }

  LIBRA_HD T argument(T x) const { return steepness * near_part(x, beta); }

  LIBRA_HD Term<T> at(T x, T log) const {
    const T a = magnitude(x), near = near_part(x, beta);
    const bool inside = a < beta;
    const T slope = alpha * log;
    return {inside ? slope * (near + shift) - alpha * near : gamma * a + outer,
            with_sign(x, inside ? slope : gamma)};
  }
};

// The formula of the published code (OceanPang/Libra_R-CNN, mmdetection). Equal to the paper's at beta = 1;
// elsewhere its slope jumps at 0 and at beta, because b is not divided by beta. Kept for published weights
// and numbers.
template <typename T>
struct ReleasedBalancedL1 {
  static constexpr bool kLogarithm = true;
  T alpha, gamma, beta;
  T steepness, shift, outer;  // b / beta, 1 / b and the constant of the outer formula

  ReleasedBalancedL1(double alpha, double gamma, double beta)
      : alpha(T(alpha)), gamma(T(gamma)), beta(T(beta)) {
    const double b = std::expm1(gamma / alpha);
    steepness = T(b / beta);
    shift = T(1 / b);
    outer = T(gamma / b - alpha * beta);
  }

  LIBRA_HD T argument(T x) const { return steepness * near_part(x, beta); }

  LIBRA_HD Term<T> at(T x, T log) const {
    const T a = magnitude(x), near = near_part(x, beta);
    const bool inside = a < beta;
    const T rise = alpha * log;
    const T slope = rise + alpha * (near + shift) / (near + beta * shift) - alpha;
    return {inside ? rise * (near + shift) - alpha * near : gamma * a + outer,
            with_sign(x, inside ? slope : gamma)};
  }
};

// Smooth L1 (Fast R-CNN, arXiv:1504.08083 eq. 3) with the quadratic part in |x| < beta; beta = 0 is L1.
template <typename T>
struct SmoothL1 {
  static constexpr bool kLogarithm = false;
  T beta;

  SmoothL1(double, double, double beta) : beta(T(beta)) {}

  LIBRA_HD T argument(T) const { return T(0); }

  LIBRA_HD Term<T> at(T x, T) const {
    const T a = magnitude(x);
    const bool inside = a < beta;
    return {inside ? T(0.5) * a * a / beta : a - T(0.5) * beta, with_sign(x, inside ? a / beta : T(1))};
  }
};

template <typename F, typename T>
LIBRA_HD Term<T> term_at(const F& form, T x) {
  return form.at(x, F::kLogarithm ? log1p_nonnegative(form.argument(x)) : T(0));
}

// `term` times a weight. A weight of 0 leaves the element out, whatever it holds.
template <typename T>
LIBRA_HD Term<T> weighted(Term<T> term, T weight) {
  return {weight == T(0) ? T(0) : weight * term.value, weight == T(0) ? T(0) : weight * term.slope};
}

}  // namespace detectron_libra
