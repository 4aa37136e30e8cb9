// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the two inner loops of roi_align, for both directions. With channels innermost a sum of cells is a sum
// of vectors of channels; in planes the rows are summed first, as vectors along x, then a few numbers per
// bin.
#include <utility>

#include "common/half.h"
#include "ops/roi_align/roi_align_tables.h"

namespace detectron_libra {

// sum[i] += weight * from[offset + i] for many terms, always in their order, kAtOnce of them per pass.
template <typename A, typename T>
class VectorSum {
 public:
  LIBRA_INLINE VectorSum(A* sum, const T* from, int64_t n) : sum_(sum), from_(from), n_(n) {}

  LIBRA_INLINE void add(int64_t offset, A weight) {
    offset_[count_] = offset, weight_[count_] = weight;
    if (++count_ == kAtOnce) pass(std::make_index_sequence<kAtOnce>());
  }

  LIBRA_INLINE void finish() {
    if (count_ == 1) pass(std::make_index_sequence<1>());
    if (count_ == 2) pass(std::make_index_sequence<2>());
    if (count_ == 3) pass(std::make_index_sequence<3>());
  }

 private:
  static constexpr int kAtOnce = 4;
  A* sum_;
  const T* from_;
  int64_t n_;
  int count_ = 0;
  int64_t offset_[kAtOnce];
  A weight_[kAtOnce];

  template <size_t... k>
  LIBRA_INLINE void pass(std::index_sequence<k...>) {
    A* __restrict sum = sum_;
    const int64_t n = n_;
    const T* const from[] = {from_ + offset_[k]...};
    const A weight[] = {weight_[k]...};
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      A s = sum[i];
      ((s += weight[k] * A(read(from[k], i))), ...);
      sum[i] = s;
    }
    count_ = 0;
  }
};

// sum[c] += weights of `row` and `column` times from[(row * pitch + column) * n + c].
template <typename A, typename T>
LIBRA_INLINE void add_cells(A* sum, const T* from, int64_t pitch, int64_t n, const SparseRows<A>& rows,
                            int64_t row, const SparseRows<A>& columns, int64_t column) {
  VectorSum<A, T> total(sum, from, n);
  for (const Term<A>* y = rows.begin(row); y != rows.end(row); ++y)
    for (const Term<A>* x = columns.begin(column); x != columns.end(column); ++x)
      total.add((y->at * pitch + x->at) * n, y->weight * x->weight);
  total.finish();
}

// sum[x] += weights of `row` times from[row * pitch + x], x in [0, n).
template <typename A, typename T>
LIBRA_INLINE void add_row(A* sum, const T* from, int64_t pitch, int64_t n, const SparseRows<A>& rows,
                          int64_t row) {
  VectorSum<A, T> total(sum, from, n);
  for (const Term<A>* y = rows.begin(row); y != rows.end(row); ++y) total.add(y->at * pitch, y->weight);
  total.finish();
}

// to[i * to_pitch] = the sum over the terms of `row` of weight times from[i * pitch + at], i in [0, kRows).
template <int kRows, typename A, typename T, typename To>
LIBRA_INLINE void sum_along(To* to, int64_t to_pitch, const T* from, int64_t pitch, const SparseRows<A>& rows,
                            int64_t row) {
  A sum[kRows] = {};
  for (const Term<A>* t = rows.begin(row); t != rows.end(row); ++t)
    for (int i = 0; i < kRows; ++i) sum[i] += t->weight * A(read(from, i * pitch + t->at));
  for (int i = 0; i < kRows; ++i) write(to, i * to_pitch, sum[i]);
}

// The same for `count` rows; the usual outputs have 7 or 14.
template <typename A, typename T, typename To>
LIBRA_INLINE void sum_along(To* to, int64_t to_pitch, const T* from, int64_t pitch, int64_t count,
                            const SparseRows<A>& rows, int64_t row) {
  int64_t i = 0;
  for (; i + 7 <= count; i += 7)
    sum_along<7>(to + i * to_pitch, to_pitch, from + i * pitch, pitch, rows, row);
  for (; i < count; ++i) sum_along<1>(to + i * to_pitch, to_pitch, from + i * pitch, pitch, rows, row);
}

// Box by box: (bins, C) from (H, W, C).
template <typename T>
void pool_box(const BoxTable<accumulate_t<T>>& box, const T* image, const View& level, int64_t side,
              accumulate_t<T>* sum, T* out) {
  const int64_t channels = level.inner;
  const T* from = image + level.at(0, box.y.begin, box.x.begin);
  for (int64_t by = 0; by < side; ++by) {
    for (int64_t bx = 0; bx < side; ++bx, out += channels) {
      for (int64_t c = 0; c < channels; ++c) sum[c] = 0;
      add_cells(sum, from, level.width, channels, box.y.of_bin, by, box.x.of_bin, bx);
      for (int64_t c = 0; c < channels; ++c) write(out, c, sum[c]);
    }
  }
}

// Box of one plane: (side, side) from (H, W). rows: (side, cells of x).
template <typename T>
void pool_plane(const BoxTable<accumulate_t<T>>& box, const T* plane, int64_t width, int64_t side,
                accumulate_t<T>* rows, T* out) {
  const int64_t cells = box.x.cells;
  const T* from = plane + box.y.begin * width + box.x.begin;
  for (int64_t by = 0; by < side; ++by) {
    accumulate_t<T>* row = rows + by * cells;
    for (int64_t x = 0; x < cells; ++x) row[x] = 0;
    add_row(row, from, width, cells, box.y.of_bin, by);
  }
  for (int64_t bx = 0; bx < side; ++bx) sum_along(out + bx, side, rows, cells, side, box.x.of_bin, bx);
}

// Adds the boxes that reach row y of a level to it: (W, C) from (bins, C) of each box.
template <typename T>
void add_boxes_to_row(const std::vector<BoxTable<accumulate_t<T>>>& tables, const std::vector<int64_t>& boxes,
                      const T* grad, int64_t y, int64_t side, int64_t channels, accumulate_t<T>* row) {
  for (const int64_t r : boxes) {
    const auto& box = tables[r];
    const int64_t inside = y - box.y.begin;
    if (inside < 0 || inside >= box.y.cells) continue;
    const T* from = grad + r * side * side * channels;
    for (int64_t x = 0; x < box.x.cells; ++x)
      add_cells(row + (box.x.begin + x) * channels, from, side, channels, box.y.of_cell, inside,
                box.x.of_cell, x);
  }
}

// Adds a box to a plane: (H, W) from (side, side). rows: (side, cells of x).
template <typename T>
void add_box_to_plane(const BoxTable<accumulate_t<T>>& box, const T* grad, int64_t width, int64_t side,
                      accumulate_t<T>* rows, accumulate_t<T>* plane) {
  const int64_t cells = box.x.cells;
  for (int64_t x = 0; x < cells; ++x) sum_along(rows + x, cells, grad, side, side, box.x.of_cell, x);
  for (int64_t y = 0; y < box.y.cells; ++y)
    add_row(plane + (box.y.begin + y) * width + box.x.begin, rows, cells, cells, box.y.of_cell, y);
}

}  // namespace detectron_libra
