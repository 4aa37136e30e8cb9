// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: one output row of a resize, added to a row of sums. The innermost loop runs over channels in
// channels_last (kPlanar false) and has one turn in contiguous memory (kPlanar true).
#include <limits>
#include <vector>

#include "ops/pyramid/pyramid_host.h"

namespace detectron_libra {

// Per axis and output cell: the input cells that it reads.
struct Resize {
  std::vector<Range> y, x;
};

template <typename Rule>
Resize tabulate(const View& from, const View& to, Rule rule) {
  Resize table;
  for (int64_t k = 0; k < to.height; ++k) table.y.push_back(rule(k, from.height, to.height));
  for (int64_t k = 0; k < to.width; ++k) table.x.push_back(rule(k, from.width, to.width));
  return table;
}

inline Resize pool_table(const View& from, const View& to) {
  return tabulate(from, to, [](int64_t k, int64_t n, int64_t m) { return window(k, n, m); });
}

inline Resize nearest_table(const View& from, const View& to) {
  return tabulate(from, to, [](int64_t k, int64_t n, int64_t m) {
    const int64_t s = nearest(k, n, m);
    return Range{s, s + 1};
  });
}

// For the gradient of nearest: `to` is the smaller level, whose cells were copied into those of `from`.
inline Resize copies_table(const View& from, const View& to) {
  return tabulate(from, to, [](int64_t s, int64_t m, int64_t n) { return copies(s, n, m); });
}

template <typename T>
struct Scratch {
  explicit Scratch(const View& row) : sum(row.width * row.inner), best(row.inner), position(row.inner) {}
  std::vector<accumulate_t<T>> sum, best;
  std::vector<int32_t> position;
};

// Adds the sum over the cells that each output reads: nearest, and its gradient.
template <typename T, bool kPlanar>
void add_cells(Scratch<T>& s, const T* from, const View& view, const Resize& table, int64_t o, int64_t y) {
  const int64_t inner = kPlanar ? 1 : view.inner;
  for (size_t x = 0; x < table.x.size(); ++x) {
    accumulate_t<T>* sum = s.sum.data() + x * inner;
    for (int64_t yy = table.y[y].begin; yy < table.y[y].end; ++yy) {
      for (int64_t xx = table.x[x].begin; xx < table.x[x].end; ++xx) {
        const T* cell = from + view.at(o, yy, xx);
        for (int64_t c = 0; c < inner; ++c) sum[c] += accumulate_t<T>(cell[c]);
      }
    }
  }
}

// Adds the maximum of each output's window, and notes where it lies. The first maximum wins; NaN wins over
// all.
template <typename T, bool kPlanar>
void add_maximum(Scratch<T>& s, const T* from, const View& view, const Resize& table,
                 const Positions& positions, int64_t first, int64_t o, int64_t y) {
  using A = accumulate_t<T>;
  const int64_t inner = kPlanar ? 1 : view.inner;
  A* best = s.best.data();
  int32_t* at = s.position.data();
  for (size_t x = 0; x < table.x.size(); ++x) {
    for (int64_t c = 0; c < inner; ++c) {
      best[c] = -std::numeric_limits<A>::infinity();
      at[c] = 0;
    }
    int32_t offset = 0;
    for (int64_t yy = table.y[y].begin; yy < table.y[y].end; ++yy) {
      for (int64_t xx = table.x[x].begin; xx < table.x[x].end; ++xx, ++offset) {
        const T* cell = from + view.at(o, yy, xx);
        for (int64_t c = 0; c < inner; ++c) {
          const A value = A(cell[c]);
          const bool better = value > best[c] || value != value;
          best[c] = better ? value : best[c];
          at[c] = better ? offset : at[c];
        }
      }
    }
    for (int64_t c = 0; c < inner; ++c) {
      s.sum[x * inner + c] += best[c];
      positions.set(first + x * inner + c, at[c]);
    }
  }
}

// Gradient of the maximum, gathered: each input cell of row y asks the windows that contain it.
// `grad` lies on the pooled level, `readers` are the windows around each input cell, `windows` the cells of a
// window.
template <typename T, bool kPlanar>
void add_maximum_grad(Scratch<T>& s, const T* grad, const View& view, const Resize& readers,
                      const Resize& windows, const Positions& positions, int64_t o, int64_t y) {
  using A = accumulate_t<T>;
  const int64_t inner = kPlanar ? 1 : view.inner;
  for (size_t x = 0; x < readers.x.size(); ++x) {
    A* sum = s.sum.data() + x * inner;
    for (int64_t ky = readers.y[y].begin; ky < readers.y[y].end; ++ky) {
      for (int64_t kx = readers.x[x].begin; kx < readers.x[x].end; ++kx) {
        const Range across = windows.x[kx];
        const int32_t mine =
            int32_t((y - windows.y[ky].begin) * (across.end - across.begin) + x - across.begin);
        const int64_t cell = view.at(o, ky, kx);
        for (int64_t c = 0; c < inner; ++c)
          sum[c] += positions.get(cell + c) == mine ? A(grad[cell + c]) : A(0);
      }
    }
  }
}

}  // namespace detectron_libra
