// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the loops that become vector instructions.
#include <cstdint>
#include <type_traits>

#include "common/half.h"

namespace detectron_libra {

// f(integral_constant<r>) for the common sizes of windows, r = 0 for all others.
template <typename F>
void with_length(int64_t length, const F& f) {
  if (length == 4)
    f(std::integral_constant<int, 4>{});
  else if (length == 2)
    f(std::integral_constant<int, 2>{});
  else if (length == 1)
    f(std::integral_constant<int, 1>{});
  else
    f(std::integral_constant<int, 0>{});
}

// f(i) for i in [0, n), as one vector loop. No two i may touch the same element. A loop is a function of its
// own, small and shared: compiled into the loops around it, it would be there hundreds of times.
template <typename F>
void for_each_lane(int64_t n, const F& f) {
  vectorized([&] {
    const F lane = f;
    const int64_t end = n;
#pragma GCC ivdep
    for (int64_t i = 0; i < end; ++i) lane(i);
  });
}

}  // namespace detectron_libra
