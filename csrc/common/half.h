// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: elements of an array of any float type, read and written as the type to compute in. For the half types
// this is integer arithmetic and selections, which vectorises where the library's conversions do not, and
// keeps subnormal halves in a process that flushes subnormal float32 numbers to zero.
#include <cstdint>

#include "common/dispatch.h"
#include "common/elementary.h"
#include "common/simd.h"

namespace detectron_libra {

LIBRA_INLINE double read(const double* from, int64_t i) { return from[i]; }
LIBRA_INLINE float read(const float* from, int64_t i) { return from[i]; }
LIBRA_INLINE void write(double* to, int64_t i, double value) { to[i] = value; }
LIBRA_INLINE void write(float* to, int64_t i, float value) { to[i] = value; }

LIBRA_INLINE float read(const torch::headeronly::BFloat16* from, int64_t i) {
  return bits_as<float>(uint32_t(reinterpret_cast<const uint16_t*>(from)[i]) << 16);
}

// To the nearest, halves to even.
LIBRA_INLINE void write(torch::headeronly::BFloat16* to, int64_t i, float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  reinterpret_cast<uint16_t*>(to)[i] = uint16_t(value != value ? 0x7fc0 : rounded);
}

LIBRA_INLINE float read(const torch::headeronly::Half* from, int64_t i) {
  constexpr uint32_t kExponent = 0x7c00u << 13, kRebias = 112u << 23, kSmallest = 113u << 23;
  const uint32_t half = reinterpret_cast<const uint16_t*>(from)[i];
  const uint32_t shifted = (half & 0x7fff) << 13, exponent = shifted & kExponent;
  const uint32_t normal = shifted + kRebias + (exponent == kExponent ? kRebias : 0);
  const float subnormal = bits_as<float>(shifted + kSmallest) - bits_as<float>(kSmallest);
  const uint32_t magnitude = exponent == 0 ? bits_as<uint32_t>(subnormal) : normal;
  return bits_as<float>(magnitude | ((half & 0x8000) << 16));
}

// To the nearest, halves to even; what is too large becomes infinite.
LIBRA_INLINE void write(torch::headeronly::Half* to, int64_t i, float value) {
  constexpr uint32_t kInfinity = 0x7f800000, kOverflow = 143u << 23, kNormal = 113u << 23;
  constexpr uint32_t kHalf = 126u << 23;  // 0.5: adding it brings the bits of a subnormal half to the bottom
  const uint32_t all = bits_as<uint32_t>(value), bits = all & 0x7fffffff;
  const uint32_t normal = (bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
  const float small = bits_as<float>(bits < kNormal ? bits : 0) + bits_as<float>(kHalf);
  const uint32_t finite = bits < kNormal ? bits_as<uint32_t>(small) - kHalf : normal;
  const uint32_t special = bits > kInfinity ? 0x7e00 : 0x7c00;
  const uint32_t magnitude = bits >= kOverflow ? special : finite;
  reinterpret_cast<uint16_t*>(to)[i] = uint16_t(magnitude | ((all >> 16) & 0x8000));
}

}  // namespace detectron_libra
