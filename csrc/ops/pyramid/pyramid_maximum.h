// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the maximum over the windows of a run of outputs, and its place. A run is a row of outputs in
// contiguous memory (kPlanar), one cell with all its channels in channels_last.
#include <limits>
#include <type_traits>

#include "ops/pyramid/pyramid_axis.h"
#include "ops/pyramid/pyramid_lanes.h"

namespace detectron_libra {

// Places that arrive in order: the first of the largest numbers stays. NaN is larger than all, and the last
// one stays, as in torch.
template <typename C>
LIBRA_INLINE void keep_larger(C& best, int32_t& at, C value, int32_t place) {
  const bool better = (value > best) | (value != value);
  best = better ? value : best;
  at = better ? place : at;
}

// In place of where the places of the maxima go, for those who want the maxima alone.
struct NoPlaces {};

template <typename P>
constexpr bool kWanted = !std::is_same_v<P, NoPlaces>;

// The maximum without its place, the same number.
template <typename C>
LIBRA_INLINE void keep_larger(C& best, C value) {
  best = (value > best) | (value != value) ? value : best;
}

// sum[i] += best[i], at[i] = place[i]: apart from the loops that find them, since bytes would split those
// into registers of two widths.
template <typename C, typename P>
void add_best(const C* best, const int32_t* place, int64_t n, C* sum, P at) {
  for_each_lane(n, [=](int64_t i) { sum[i] += best[i]; });
  if constexpr (kWanted<P>) for_each_lane(n, [=](int64_t i) { at[i] = std::remove_pointer_t<P>(place[i]); });
}

// Contiguous memory, per column: the maximum over the rows, and its row.
template <bool kPlaces, int kRows, typename T, typename C>
void maximum_down(const T* from, int64_t stride, int64_t rows, int64_t n, C* best, int32_t* row) {
  if constexpr (kRows > 0) {
    for_each_lane(n, [=](int64_t i) {
      C b = -std::numeric_limits<C>::infinity();
      int32_t at = 0;
      for (int r = 0; r < kRows; ++r) {
        if constexpr (kPlaces) keep_larger(b, at, C(read(from + r * stride, i)), r);
        if constexpr (!kPlaces) keep_larger(b, C(read(from + r * stride, i)));
      }
      best[i] = b;
      if constexpr (kPlaces) row[i] = at;
    });
  } else {
    maximum_down<kPlaces, 1>(from, stride, 1, n, best, row);
    for (int64_t r = 1; r < rows; ++r) {
      const T* line = from + r * stride;
      for_each_lane(n, [=](int64_t i) {
        if constexpr (kPlaces) keep_larger(best[i], row[i], C(read(line, i)), int32_t(r));
        if constexpr (!kPlaces) keep_larger(best[i], C(read(line, i)));
      });
    }
  }
}

// The maximum of `columns` columns, each a maximum over rows, and its place in row-major order.
template <bool kPlaces, typename C>
struct Across {
  C best;
  int32_t place = 0;

  LIBRA_INLINE Across(const C* value, const int32_t* row, int32_t columns)
      : best(-std::numeric_limits<C>::infinity()) {
    int32_t first = std::numeric_limits<int32_t>::max(), last_nan = -1;
    for (int32_t j = 0; j < columns; ++j) keep_larger(best, value[j]);
    if (!kPlaces) return;
    for (int32_t j = 0; j < columns; ++j) {
      const int32_t here = row[j] * columns + j;
      const int32_t equal = value[j] == best ? here : std::numeric_limits<int32_t>::max();
      const int32_t nan = value[j] != value[j] ? here : -1;
      first = equal < first ? equal : first;
      last_nan = nan > last_nan ? nan : last_nan;
    }
    place = last_nan >= 0 ? last_nan : first;
  }
};

// Contiguous memory: the windows of a row of outputs.
template <typename T, typename C, typename P>
void add_row_maximum(Scratch<C>& s, const T* from, int64_t stride, int64_t rows, int64_t wide, const Axis& x,
                     int64_t n, P at) {
  C *best = s.best.data(), *found = s.spread.data();
  int32_t *row = s.row.data(), *place = s.place.data();
  with_length(rows, [&](auto r) { maximum_down<kWanted<P>, r.value>(from, stride, rows, wide, best, row); });
  with_length(x.gather, [&](auto length) {
    constexpr int kColumns = length.value;
    if constexpr (kColumns > 0) {
      for_each_lane(n, [=](int64_t i) {
        const Across<kWanted<P>, C> across(best + i * kColumns, row + i * kColumns, kColumns);
        found[i] = across.best;
        place[i] = across.place;
      });
    } else {
      for (int64_t i = 0; i < n; ++i) {
        const Range r = x.cells[i];
        const Across<kWanted<P>, C> across(best + r.begin, row + r.begin, int32_t(r.end - r.begin));
        found[i] = across.best;
        place[i] = across.place;
      }
    }
  });
  s.level = nullptr;  // `spread` and `place` hold no row now
  add_best(found, place, n, s.sum.data(), at);
}

// channels_last: the window of one cell, in row-major order.
template <typename T, typename C, typename P>
void add_cell_maximum(Scratch<C>& s, const T* from, int64_t stride, int64_t rows, int64_t columns, int64_t n,
                      P at) {
  C* best = s.best.data();
  int32_t* place = s.row.data();
  with_length(rows == columns ? rows : 0, [&](auto length) {
    constexpr int kSide = length.value > 0 ? length.value : 1;
    for_each_lane(n, [=](int64_t i) {
      C b = -std::numeric_limits<C>::infinity();
      int32_t p = 0;
      for (int k = 0; k < kSide * kSide; ++k) {
        const C value = C(read(from + (k / kSide) * stride + (k % kSide) * n, i));
        if constexpr (kWanted<P>) keep_larger(b, p, value, k);
        if constexpr (!kWanted<P>) keep_larger(b, value);
      }
      best[i] = b;
      if constexpr (kWanted<P>) place[i] = p;
    });
    if (length.value > 0) return;
    for (int64_t k = 1; k < rows * columns; ++k) {
      const T* cell = from + (k / columns) * stride + (k % columns) * n;
      for_each_lane(n, [=](int64_t i) {
        if constexpr (kWanted<P>) keep_larger(best[i], place[i], C(read(cell, i)), int32_t(k));
        if constexpr (!kWanted<P>) keep_larger(best[i], C(read(cell, i)));
      });
    }
  });
  add_best(best, place, n, s.sum.data(), at);
}

// Adds the maxima of the windows of outputs [x0, x1) of row y to s.sum, and notes where they lie from
// at[0] on.
template <bool kPlanar, typename T, typename C, typename P>
void add_maximum(Scratch<C>& s, const Link<T>& level, int64_t o, int64_t y, int64_t x0, int64_t x1, P at) {
  const Axis& x = level.table.x;
  const Range rows = level.table.y.cells[y], columns = {x.cells[x0].begin, x.cells[x1 - 1].end};
  const T* from = level.data + level.view.at(o, rows.begin, columns.begin);
  const int64_t stride = level.view.width * level.view.inner, high = rows.end - rows.begin;
  const int64_t wide = columns.end - columns.begin;
  if constexpr (kPlanar)
    add_row_maximum(s, from, stride, high, wide, x, x1 - x0, at);
  else
    add_cell_maximum(s, from, stride, high, wide, level.view.inner, at);
}

}  // namespace detectron_libra
