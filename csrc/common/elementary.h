// SPDX-License-Identifier: Apache-2.0
#pragma once
// Logarithm and exponential that a compiler can turn into vector instructions: no table, no branch, no call.
// float32 within 3 units in the last place; other types and the GPU take the library's functions.
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

// x where `sign` has no sign bit, -x where it has.
LIBRA_HD float flip_sign(float x, float sign) {
  return bits_as<float>(bits_as<uint32_t>(x) ^ (bits_as<uint32_t>(sign) & 0x80000000u));
}
LIBRA_HD double flip_sign(double x, double sign) {
  return bits_as<double>(bits_as<uint64_t>(x) ^ (bits_as<uint64_t>(sign) & 0x8000000000000000u));
}

// log(1 + r) for r in [sqrt(1/2) - 1, sqrt(2) - 1]: 2 atanh(s) with s = r / (2 + r), arranged so that r,
// which is exact, leads. One division replaces half of a polynomial in r.
LIBRA_HD float log1p_near_zero(float r) {
  const float s = r / (2.0f + r), z = s * s;
  const float p = z * (0.6666668653488159f + z * (0.3998878002166748f + z * 0.29579949378967285f));
  return r - s * (r - p);
}

// 1 + x = 2^e (1 + r) with 1 + r in [sqrt(1/2), sqrt(2)).
struct Split {
  float r, e_ln2;
};

LIBRA_HD Split split_one_plus(float x) {
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  constexpr float kLn2 = 0.6931471805599453f;
  const int32_t shifted = bits_as<int32_t>(1.0f + x) - kSqrtHalf, e = shifted >> 23;
  const float m = bits_as<float>((shifted & 0x007fffff) + kSqrtHalf);
  // A small x is taken as it is, before 1 + x rounds; beyond, rounding costs no more than its half unit.
  return {e == 0 ? x : m - 1.0f, float(e) * kLn2};
}

// log(1 + x) for 0 <= x < infinity. Small x keep their relative precision.
LIBRA_HD float log1p_nonnegative(float x) {
#if defined(__CUDA_ARCH__)
  return log1pf(x);
#else
  const Split split = split_one_plus(x);
  return log1p_near_zero(split.r) + split.e_ln2;
#endif
}

LIBRA_HD double log1p_nonnegative(double x) { return log1p(x); }

// CPU: log1p_nonnegative of a block in place, the same bits. Two short loops, because a processor that waits
// for one long chain of operations after another cannot look far enough ahead to fill the time.
template <int kBlock>
inline void log1p_block(float* x, int64_t count) {
  float e_ln2[kBlock];
  for (int64_t i = 0; i < count; ++i) {
    const Split split = split_one_plus(x[i]);
    x[i] = split.r;
    e_ln2[i] = split.e_ln2;
  }
  for (int64_t i = 0; i < count; ++i) x[i] = log1p_near_zero(x[i]) + e_ln2[i];
}

template <int kBlock>
inline void log1p_block(double* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = log1p_nonnegative(x[i]);
}

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
