// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the two inner loops of roi_align, for both directions. With channels innermost a sum of cells is a sum
// of vectors of channels; in planes the rows are summed first, as vectors along x, then a few numbers per bin.
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
    if (++count_ == kAtOnce) count_ -= pass(0, std::make_index_sequence<kAtOnce>());
  }

  LIBRA_INLINE void finish() {
    int done = 0;
    if (count_ & 4) done += pass(done, std::make_index_sequence<4>());
    if (count_ & 2) done += pass(done, std::make_index_sequence<2>());
    if (count_ & 1) done += pass(done, std::make_index_sequence<1>());
  }

 private:
  static constexpr int kAtOnce = 8;
  A* sum_;
  const T* from_;
  int64_t n_;
  int count_ = 0;
  int64_t offset_[kAtOnce];
  A weight_[kAtOnce];

  template <size_t... k>
  LIBRA_INLINE int pass(int done, std::index_sequence<k...>) {
    A* __restrict sum = sum_;
    const int64_t n = n_;
    const T* const from[] = {from_ + offset_[done + k]...};
    const A weight[] = {weight_[done + k]...};
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      A s = sum[i];
      ((s += weight[k] * A(read(from[k], i))), ...);
      sum[i] = s;
    }
    return int(sizeof...(k));
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

// The sum over the terms of a row of weight times from[at].
template <typename A, typename T>
LIBRA_INLINE A sum_along(const T* from, const SparseRows<A>& rows, int64_t row) {
  A sum(0);
  for (const Term<A>* t = rows.begin(row); t != rows.end(row); ++t) sum += t->weight * A(read(from, t->at));
  return sum;
}

}  // namespace detectron_libra
