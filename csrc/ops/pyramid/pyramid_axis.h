// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: for each cell of a level, the cells of another that it meets, along y and along x.
#include <algorithm>
#include <vector>

#include "ops/pyramid/pyramid_host.h"

namespace detectron_libra {

struct Axis {
  std::vector<Range> cells;
  int64_t gather = 0;  // r where cell k meets [r k, r k + r), for every k: loops of fixed length; otherwise 0
  int64_t spread = 0;  // r where cell k meets k / r alone, for every k; otherwise 0
  int64_t widest = 0;  // the largest number of cells that one cell meets

  Axis() = default;
  explicit Axis(std::vector<Range> of) : cells(std::move(of)) {
    const int64_t count = int64_t(cells.size());
    for (const Range& r : cells) widest = std::max(widest, r.end - r.begin);
    int64_t repeats = 0;
    while (repeats < count && cells[repeats].begin == 0) ++repeats;
    gather = all([&](int64_t k) { return Range{k * widest, (k + 1) * widest}; }) ? widest : 0;
    spread = all([&](int64_t k) { return Range{k / repeats, k / repeats + 1}; }) ? repeats : 0;
  }

 private:
  template <typename Rule>
  bool all(Rule rule) const {
    for (size_t k = 0; k < cells.size(); ++k) {
      const Range want = rule(int64_t(k));
      if (cells[k].begin != want.begin || cells[k].end != want.end) return false;
    }
    return true;
  }
};

struct Resize {
  Axis y, x;
};

template <typename Rule>
Axis axis_of(int64_t from, int64_t to, Rule rule) {
  std::vector<Range> cells;
  for (int64_t k = 0; k < to; ++k) cells.push_back(rule(k, from, to));
  return Axis(std::move(cells));
}

template <typename Rule>
Resize tabulate(const View& from, const View& to, Rule rule) {
  return {axis_of(from.height, to.height, rule), axis_of(from.width, to.width, rule)};
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

// For the gradient of nearest: `to` is the level whose cells were copied into those of `from`.
inline Resize copies_table(const View& from, const View& to) {
  return tabulate(from, to, [](int64_t s, int64_t m, int64_t n) { return copies(s, n, m); });
}

// A level as one resize sees it: its cells, which of them each cell of the other level meets, and, for the
// gradient of a maximum, the other level's cells in each of its windows.
template <typename T>
struct Link {
  const T* data;
  View view;
  Resize table, windows;
  Positions positions;
};

// What one thread needs for a run of outputs: a row in contiguous memory, the channels of a cell in
// channels_last.
template <typename C>
struct Scratch {
  std::vector<C> sum, best, spread;
  std::vector<int32_t> row, place;
  const void* level = nullptr;  // what `spread` and `place` hold: of this level
  int64_t line = -1;            // this row

  // `run`: elements of the longest run; `met`: the most cells that one of its outputs meets along x.
  Scratch(int64_t run, int64_t met)
      : sum(run), best(run * met), spread(kSlack + run * met), row(run * met), place(kSlack + run * met) {}

  bool holds(const void* of, int64_t y) {
    const bool same = level == of && line == y;
    level = of;
    line = y;
    return same;
  }

 private:
  static constexpr int64_t kSlack = 8;  // a row is spread in whole groups of up to 4
};

}  // namespace detectron_libra
