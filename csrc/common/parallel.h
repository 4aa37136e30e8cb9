// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU loops over torch's thread pool.
#include <cstdint>

#include <torch/csrc/stable/ops.h>

namespace detectron_libra {

// Elements per thread below which threads cost more than they save.
constexpr int64_t kGrain = 16384;

// f(begin, end) over ranges that cover [0, n).
template <typename F>
void parallel_ranges(int64_t n, int64_t grain, const F& f) {
  if (n > 0) torch::stable::parallel_for(0, n, grain, f);
}

}  // namespace detectron_libra
