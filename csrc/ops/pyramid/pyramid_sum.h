// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the sum over the cells that copied a cell, the gradient of nearest, for a run of cells: first down the
// rows, which lie side by side in memory, then across. Runs as in pyramid_maximum.h.
#include "ops/pyramid/pyramid_axis.h"
#include "ops/pyramid/pyramid_lanes.h"

namespace detectron_libra {

// to[i] = the sum of the elements i of `lines` arrays that lie `stride` apart; kAdd: += instead of =.
template <int kLines, bool kAdd, typename T, typename C>
void sum_lines(const T* from, int64_t stride, int64_t n, C* to) {
  for_each_lane(n, [=](int64_t i) {
    C total = read(from, i);
    for (int r = 1; r < kLines; ++r) total += C(read(from + r * stride, i));
    to[i] = kAdd ? to[i] + total : total;
  });
}

template <int kColumns, typename C>
void sum_across(const C* from, int64_t n, C* sum) {
  for_each_lane(n, [=](int64_t i) {
    C total = from[i * kColumns];
    for (int j = 1; j < kColumns; ++j) total += from[i * kColumns + j];
    sum[i] += total;
  });
}

template <typename C>
void sum_across_row(const C* from, const Axis& x, int64_t n, C* sum) {
  for (int64_t i = 0; i < n; ++i) {
    const Range r = x.cells[i];
    if (r.begin == r.end) continue;
    C total = from[r.begin];
    for (int64_t k = r.begin + 1; k < r.end; ++k) total += from[k];
    sum[i] += total;
  }
}

// Adds to s.sum, for outputs [x0, x1) of row y, the sum over the cells that copied them: the gradient of
// nearest.
template <bool kPlanar, typename T, typename C>
void add_copies(Scratch<C>& s, const Link<T>& level, int64_t o, int64_t y, int64_t x0, int64_t x1) {
  const Axis& x = level.table.x;
  const Range rows = level.table.y.cells[y], columns = {x.cells[x0].begin, x.cells[x1 - 1].end};
  const int64_t inner = kPlanar ? 1 : level.view.inner, n = (x1 - x0) * inner;
  const int64_t wide = (columns.end - columns.begin) * inner;
  if (rows.begin == rows.end || wide == 0) return;
  C *down = s.best.data(), *sum = s.sum.data();
  const T* from = level.data + level.view.at(o, rows.begin, columns.begin);
  const int64_t line = level.view.width * inner;
  with_length(rows.end - rows.begin, [&](auto length) {
    sum_lines<length.value ? length.value : 1, false>(from, line, wide, down);
    if (length.value > 0) return;
    for (int64_t r = 1; r < rows.end - rows.begin; ++r) sum_lines<1, true>(from + r * line, line, wide, down);
  });
  // The sum of a window first, then added, whatever its size and the layout: the same bits in both.
  with_length(kPlanar ? x.gather : columns.end - columns.begin, [&](auto length) {
    if constexpr (kPlanar && length.value > 0) {
      sum_across<length.value>(down, n, sum);
    } else if constexpr (kPlanar) {
      sum_across_row(down, x, n, sum);
    } else {
      if constexpr (length.value == 0)
        for (int64_t k = n; k < wide; k += n) sum_lines<1, true>(down + k, n, n, down);
      sum_lines<length.value ? length.value : 1, true>(down, n, n, sum);
    }
  });
}

}  // namespace detectron_libra
