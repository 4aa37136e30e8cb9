// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU loops: over torch's thread pool, and vectorised for the machine at hand without -march=native.
#include <cstdint>

#include <torch/csrc/stable/ops.h>

// In front of a plain function: the compiler makes one version per instruction set and the loader picks. It
// cannot stand in front of a template or a lambda; inline functions called from the marked one are cloned
// with it.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define LIBRA_SIMD_CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define LIBRA_SIMD_CLONES
#endif

namespace detectron_libra {

// Elements per thread below which threads cost more than they save.
constexpr int64_t kGrain = 16384;

// f(begin, end) over ranges that cover [0, n).
template <typename F>
void parallel_ranges(int64_t n, int64_t grain, const F& f) {
  if (n > 0) torch::stable::parallel_for(0, n, grain, f);
}

}  // namespace detectron_libra
