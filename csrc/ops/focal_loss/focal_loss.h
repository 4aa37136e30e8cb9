// SPDX-License-Identifier: Apache-2.0
#pragma once
// Focal loss of one logit (sigmoid) or of one anchor (softmax) and its slope. Lin et al., Focal Loss for
// Dense Object Detection, arXiv:1708.02002, eq. 5; background and ignored anchors as in Detectron's focal
// loss ops.
#include <cmath>
#include <cstdint>

#include "common/elementary.h"
#include "common/host_device.h"

namespace detectron_libra {

// A loss and its derivative; they share exponential and logarithm.
template <typename T>
struct FocalTerm {
  T value, slope;
};

LIBRA_HD float natural_log(float x) { return logf(x); }
LIBRA_HD double natural_log(double x) { return log(x); }

// Independent classes. kSquare: gamma is 2, which needs no power.
template <typename T, bool kSquare>
struct SigmoidFocal {
  T alpha, gamma;

  // Loss of logit x of a class that the anchor has (positive) or has not. Turned so that a large m is a
  // mistake for either kind: p^gamma * softplus(m), p = sigmoid(m). An infinite m, a certain mistake, costs
  // infinity and has the slope of its limit.
  LIBRA_HD FocalTerm<T> at(T x, bool positive) const {
    const T m = positive ? -x : x, share = positive ? alpha : T(1) - alpha;
    const T e = exponential(m < T(0) ? m : -m);
    const T log = log1p_nonnegative(e), inverse = T(1) / (T(1) + e);
    const T p = m < T(0) ? e * inverse : inverse, q = m < T(0) ? inverse : e * inverse;
    const T softplus = (m < T(0) ? T(0) : m) + log;
    const T log_p = (m < T(0) ? m : T(0)) - log;
    T power = p * p;
    if (!kSquare) power = gamma == T(0) ? T(1) : exponential(gamma * log_p);
    const T bent = q == T(0) ? T(0) : q * softplus;
    const T slope = share * power * (gamma * bent + p);
    return {share * power * softplus, positive ? -slope : slope};
  }
};

// Least 1 - p that is raised to gamma: the power of 0 has no finite slope below gamma 1.
constexpr double kSmallestMiss = 1e-12;

// Exclusive classes: loss of an anchor whose class has log-probability log_p, and its slope along log_p.
template <typename T>
LIBRA_HD FocalTerm<T> softmax_focal(T log_p, bool positive, T alpha, T gamma) {
  const T share = positive ? alpha : T(1) - alpha;
  const T p = T(exp(double(log_p)));
  const T exact = T(-expm1(double(log_p)));
  const bool tiny = exact < T(kSmallestMiss);
  const T miss = tiny ? T(kSmallestMiss) : exact;
  const T power = gamma == T(2) ? miss * miss : T(pow(double(miss), double(gamma)));
  const T bent = tiny ? T(0) : gamma * (power / miss) * p * log_p;
  return {-share * power * log_p, share * (bent - power)};
}

}  // namespace detectron_libra
