// SPDX-License-Identifier: Apache-2.0
#pragma once
// Loss of one residual x = pred - target and its slope, for the three forms of the operator.
// Compiled by the CPU kernel, the CUDA kernel and detectron_libra._math, so that they cannot drift apart.
#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace detectron_libra {

// Numbers that the Python side passes as `form`.
enum LossForm : int64_t { kPaper = 0, kReleased = 1, kSmoothL1 = 2 };

template <typename T>
LIBRA_HD T magnitude(T x) {
  return x < T(0) ? -x : x;
}

// slope * sign(x): 0 at x = 0, NaN for NaN, whatever the one-sided slope is.
template <typename T>
LIBRA_HD T with_sign(T x, T slope) {
  if (x != x) return x;
  return x > T(0) ? slope : (x < T(0) ? -slope : T(0));
}

// Libra R-CNN (arXiv:1904.02701) eq. 8-9: the integral of alpha * ln(b |x| / beta + 1), which reaches gamma
// at |x| = beta. One branch is evaluated, so an infinite residual never meets 0 * inf; a NaN takes the outer
// one.
template <typename T>
struct BalancedL1 {
  T alpha, gamma, beta;
  T b;  // e^(gamma / alpha) - 1: makes the slope continuous at |x| = beta

  BalancedL1(double alpha, double gamma, double beta)
      : alpha(T(alpha)), gamma(T(gamma)), beta(T(beta)), b(T(std::expm1(gamma / alpha))) {}

  LIBRA_HD T value(T x) const {
    const T a = magnitude(x);
    if (a < beta) return alpha / b * (b * a + beta) * std::log1p(b * a / beta) - alpha * a;
    return gamma * a + gamma * beta / b - alpha * beta;
  }

  LIBRA_HD T slope(T x) const {
    const T a = magnitude(x);
    return with_sign(x, a < beta ? alpha * std::log1p(b * a / beta) : gamma);
  }
};

// The formula of the published code (OceanPang/Libra_R-CNN, mmdetection). Equal to the paper's at beta = 1;
// elsewhere its slope jumps at 0 and at beta, because b is not divided by beta. Kept for published weights
// and numbers.
template <typename T>
struct ReleasedBalancedL1 {
  T alpha, gamma, beta, b;

  ReleasedBalancedL1(double alpha, double gamma, double beta)
      : alpha(T(alpha)), gamma(T(gamma)), beta(T(beta)), b(T(std::expm1(gamma / alpha))) {}

  LIBRA_HD T value(T x) const {
    const T a = magnitude(x);
    if (a < beta) return alpha / b * (b * a + T(1)) * std::log1p(b * a / beta) - alpha * a;
    return gamma * a + gamma / b - alpha * beta;
  }

  LIBRA_HD T slope(T x) const {
    const T a = magnitude(x);
    if (!(a < beta)) return with_sign(x, gamma);
    return with_sign(x, alpha * std::log1p(b * a / beta) + alpha * (b * a + T(1)) / (b * a + beta) - alpha);
  }
};

// Smooth L1 (Fast R-CNN, arXiv:1504.08083 eq. 3) with the quadratic part in |x| < beta; beta = 0 is L1.
template <typename T>
struct SmoothL1 {
  T beta;

  SmoothL1(double, double, double beta) : beta(T(beta)) {}

  LIBRA_HD T value(T x) const {
    const T a = magnitude(x);
    return a < beta ? T(0.5) * a * a / beta : a - T(0.5) * beta;
  }

  LIBRA_HD T slope(T x) const {
    const T a = magnitude(x);
    return with_sign(x, a < beta ? a / beta : T(1));
  }
};

// Elements that one partial sum covers. Fixed, so that a sum does not depend on the number of threads.
constexpr int64_t kChunk = 4096;

}  // namespace detectron_libra
