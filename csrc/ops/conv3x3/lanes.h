// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: sixteen neighbouring channels at once, as a vector type of the compiler.
#include <cstdint>
#include <cstring>

#include <torch/headeronly/util/BFloat16.h>

#include "common/simd.h"

namespace detectron_libra {

constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint32_t WideBits __attribute__((vector_size(kLanes * sizeof(uint32_t))));
typedef uint16_t HalfBits __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// By reference: a vector in an argument list is laid out differently for each instruction set.
LIBRA_INLINE void load(Lanes& to, const float* from) { std::memcpy(&to, from, sizeof(Lanes)); }
LIBRA_INLINE void store(float* to, const Lanes& from) { std::memcpy(to, &from, sizeof(Lanes)); }

LIBRA_INLINE void load(Lanes& to, const torch::headeronly::BFloat16* from) {
  HalfBits half;
  std::memcpy(&half, from, sizeof(half));
  const WideBits bits = __builtin_convertvector(half, WideBits) << 16;
  std::memcpy(&to, &bits, sizeof(bits));
}

// To the nearest, halves to even; NaN stays NaN.
LIBRA_INLINE void store(torch::headeronly::BFloat16* to, const Lanes& from) {
  WideBits bits;
  std::memcpy(&bits, &from, sizeof(bits));
  const WideBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const WideBits chosen = from == from ? rounded : (WideBits{} + 0x7fc0);
  const HalfBits half = __builtin_convertvector(chosen, HalfBits);
  std::memcpy(to, &half, sizeof(half));
}

}  // namespace detectron_libra
