// SPDX-License-Identifier: Apache-2.0
#pragma once
// Logarithm and exponential that a compiler can turn into vector instructions: no table, no branch, no call.
// float32 within 2 units in the last place; other types and the GPU take the library's functions.
// The polynomials are Chebyshev fits in float64, rounded; tests/ops/test_math.py measures the errors.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace detectron_libra {

template <typename To, typename From>
LIBRA_HD To bits_as(From from) {
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// log(1 + r) for r in [sqrt(1/2) - 1, sqrt(2) - 1].
LIBRA_HD float log1p_near_zero(float r) {
  float p = -0.08101558685302734f;
  p = p * r + 0.12712307274341583f;
  p = p * r - 0.12972238659858704f;
  p = p * r + 0.14202174544334412f;
  p = p * r - 0.16642247140407562f;
  p = p * r + 0.20001468062400818f;
  p = p * r - 0.25000298023223877f;
  p = p * r + 0.333333283662796f;
  return r + (r * r) * (r * p - 0.5f);
}

// log(1 + x) for 0 <= x < infinity. Small x keep their relative precision.
LIBRA_HD float log1p_nonnegative(float x) {
#if defined(__CUDA_ARCH__)
  return log1pf(x);
#else
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  constexpr float kLn2High = 0.693359375f,
                  kLn2Low = -2.12194440e-4f;  // their sum is ln 2; the first is exact
  const float u = 1.0f + x;
  // u = 2^e m with m in [sqrt(1/2), sqrt(2)).
  const int32_t shifted = bits_as<int32_t>(u) - kSqrtHalf;
  const int32_t e = shifted >> 23;
  const float m = bits_as<float>((shifted & 0x007fffff) + kSqrtHalf);
  // A small x is taken as it is, before 1 + x rounds; beyond, rounding costs no more than its half unit.
  const float log_m = log1p_near_zero(e == 0 ? x : m - 1.0f);
  return (log_m + float(e) * kLn2Low) + float(e) * kLn2High;
#endif
}

LIBRA_HD double log1p_nonnegative(double x) { return log1p(x); }

// e^x; 0 below -87.3, and the largest power there is above 88.3. NaN stays NaN.
LIBRA_HD float exponential(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float low = x < -87.3f ? -87.3f : x;
  const float clamped = low > 88.3f ? 88.3f : low;
  const float shifted = clamped * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 0.0013933643931522965f;
  p = p * r + 0.008363175205886364f;
  p = p * r + 0.04166646674275398f;
  p = p * r + 0.16666576266288757f;
  p = p * r + 0.5f;
  const float fraction = (r * r * p + r) + 1.0f;
  const int32_t scaled = bits_as<int32_t>(fraction) + (bits_as<int32_t>(shifted) << 23);
  const float value = x != x ? x : bits_as<float>(scaled);
  return x < -87.3f ? 0.0f : value;
#endif
}

LIBRA_HD double exponential(double x) { return exp(x); }

}  // namespace detectron_libra
