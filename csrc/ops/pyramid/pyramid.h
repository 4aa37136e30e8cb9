// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which cells of one level meet which cells of another: the two resizes of the balanced feature pyramid.
// Libra R-CNN (arXiv:1904.02701, section 3.2): finer levels by adaptive max pooling, coarser ones by nearest.
#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace detectron_libra {

struct Range {
  int64_t begin, end;
};

// Cells of an axis of length n that the window of cell k covers when pooled to length m:
// [floor(k n / m), ceil((k + 1) n / m)). Windows overlap where n is no multiple of m.
// Read the other way, window(y, m, n) are the outputs whose windows contain input cell y.
LIBRA_HD Range window(int64_t k, int64_t n, int64_t m) { return {k * n / m, ((k + 1) * n + m - 1) / m}; }

// Cell of an axis of length n that cell k of length m copies. PyTorch's rule, with the rounding of float32:
// it differs from floor(k n / m) for a few pairs of sizes.
LIBRA_HD int64_t nearest(int64_t k, int64_t n, int64_t m) {
  if (n == m) return k;
  const int64_t source = int64_t(floorf(float(k) * (float(n) / float(m))));
  return source < n - 1 ? source : n - 1;
}

// First of the m cells that copy cell s or a later one; m where none does.
LIBRA_HD int64_t first_copy(int64_t s, int64_t n, int64_t m) {
  int64_t k = s * m / n;  // right up to float32's rounding
  k = k < m ? k : m;
  while (k > 0 && nearest(k - 1, n, m) >= s) --k;
  while (k < m && nearest(k, n, m) < s) ++k;
  return k;
}

// The cells, of m, that copy cell s of n: the inverse of nearest().
LIBRA_HD Range copies(int64_t s, int64_t n, int64_t m) {
  return {first_copy(s, n, m), s + 1 < n ? first_copy(s + 1, n, m) : m};
}

// Bound on the cells of a window: decides the integer type of the stored positions of maxima.
inline int64_t largest_window(int64_t n, int64_t m) { return n % m == 0 ? n / m : n / m + 2; }

}  // namespace detectron_libra
