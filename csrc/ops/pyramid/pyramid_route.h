// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: from a cell to those that copy it, and the gradient of a maximum back to its cell. Runs as in
// pyramid_maximum.h. In contiguous memory a row is spread to the width of the run once, and serves every row
// that reads it.
#include "ops/pyramid/pyramid_axis.h"
#include "ops/pyramid/pyramid_lanes.h"

namespace detectron_libra {

// to[i] = from[i / kTimes]; writes whole groups, up to kTimes - 1 elements past n.
template <int kTimes, typename T, typename C>
void repeat_each(const T* from, int64_t n, C* to) {
  for_each_lane((n + kTimes - 1) / kTimes, [=](int64_t k) {
    for (int j = 0; j < kTimes; ++j) to[k * kTimes + j] = C(read(from, k));
  });
}

template <typename T, typename C>
void spread_row(const T* from, const Axis& x, int64_t n, C* to) {
  with_length(x.spread, [&](auto length) {
    if constexpr (length.value > 0)
      repeat_each<length.value>(from, n, to);
    else
      for (int64_t i = 0; i < n; ++i) to[i] = read(from, x.cells[i].begin);
  });
}

// f(values) with the numbers that outputs [x0, x1) of row y copy.
template <bool kPlanar, typename T, typename C, typename F>
void with_nearest(Scratch<C>& s, const Link<T>& level, int64_t o, int64_t y, int64_t x0, int64_t x1,
                  const F& f) {
  const int64_t line = level.table.y.cells[y].begin;
  if constexpr (kPlanar) {
    if (level.table.x.spread == 1) return f(level.data + level.view.at(o, line, 0));
    if (!s.holds(&level, o * level.view.height + line))
      spread_row(level.data + level.view.at(o, line, 0), level.table.x, x1 - x0, s.spread.data());
    f(static_cast<const C*>(s.spread.data()));
  } else {
    f(level.data + level.view.at(o, line, level.table.x.cells[x0].begin));
  }
}

// The gradients that may belong to the cells of a run: grad[i] does where at[i] is `mine`.
template <typename G, typename P>
struct Reader {
  const G* grad;
  const P* at;
  int32_t mine;

  LIBRA_INLINE accumulate_t<G> of(int64_t i) const {
    const accumulate_t<G> g = read(grad, i);
    return int32_t(at[i]) == mine ? g : accumulate_t<G>(0);
  }
};

// For each cell of a row, its reader number `which`: that window's gradient, and what the Reader compares. In
// windows of kTimes columns that is the place of the maximum less the cell's column, to be kTimes times the
// cell's row; in others the row of the maximum, or -1 where it lies in another column.
template <int kTimes, typename T, typename C, typename P>
void spread_reader(const T* grad, const P* at, int64_t n, C* to, int32_t* row) {
  repeat_each<kTimes>(grad, n, to);
  for_each_lane((n + kTimes - 1) / kTimes, [=](int64_t k) {
    for (int32_t j = 0; j < kTimes; ++j) row[k * kTimes + j] = int32_t(at[k]) - j;
  });
}

template <typename T, typename C, typename P>
void spread_any_reader(const T* grad, const P* at, const Resize& readers, const Resize& windows,
                       int64_t which, int64_t n, C* to, int32_t* row) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = readers.x.cells[i].begin + which;
    if (k >= readers.x.cells[i].end) {
      to[i] = C(0);
      row[i] = -1;
      continue;
    }
    const Range columns = windows.x.cells[k];
    const int32_t width = int32_t(columns.end - columns.begin), place = int32_t(at[k]);
    to[i] = read(grad, k);
    row[i] = place % width == int32_t(i - columns.begin) ? place / width : -1;
  }
}

// f(positions as uint8 or as int32)
template <typename F>
void with_positions(const Positions& p, const F& f) {
  if (p.wide)
    f(static_cast<int32_t*>(p.data));
  else
    f(static_cast<uint8_t*>(p.data));
}

// The columns of a window where all have 1, 2 or 4 of them and none overlap; otherwise 0.
inline int64_t fixed_times(const Axis& readers, const Axis& windows) {
  const int64_t times = windows.gather == readers.spread ? readers.spread : 0;
  return times == 1 || times == 2 || times == 4 ? times : 0;
}

template <typename T, typename C, typename F>
void for_each_row_reader(Scratch<C>& s, const Link<T>& level, int64_t o, int64_t y, int64_t n, const F& f) {
  const Resize &readers = level.table, &windows = level.windows;
  const int64_t times = fixed_times(readers.x, windows.x);
  const Range lines = readers.y.cells[y];
  for (int64_t line = lines.begin; line < lines.end; ++line) {
    const bool held = s.holds(&level, o * level.view.height + line);
    const int64_t first = level.view.at(o, line, 0);
    for (int64_t which = 0; which < readers.x.widest; ++which) {
      C* grad = s.spread.data() + which * n;
      int32_t* row = s.place.data() + which * n;
      if (!held) {
        with_positions(level.positions, [&](const auto* at) {
          with_length(times, [&](auto length) {
            if constexpr (length.value > 0)
              spread_reader<length.value>(level.data + first, at + first, n, grad, row);
            else
              spread_any_reader(level.data + first, at + first, readers, windows, which, n, grad, row);
          });
        });
      }
      const int64_t down = y - windows.y.cells[line].begin;
      f(Reader<C, int32_t>{grad, row, int32_t(down * (times > 0 ? times : 1))});
    }
  }
}

template <typename T, typename F>
void for_each_cell_reader(const Link<T>& level, int64_t o, int64_t y, int64_t x, const F& f) {
  const Range lines = level.table.y.cells[y], cells = level.table.x.cells[x];
  for (int64_t line = lines.begin; line < lines.end; ++line) {
    for (int64_t k = cells.begin; k < cells.end; ++k) {
      const Range columns = level.windows.x.cells[k];
      const int64_t down = y - level.windows.y.cells[line].begin;
      const int32_t mine = int32_t(down * (columns.end - columns.begin) + x - columns.begin);
      const int64_t first = level.view.at(o, line, k);
      with_positions(level.positions, [&](const auto* at) {
        using P = std::remove_cv_t<std::remove_pointer_t<decltype(at)>>;
        f(Reader<T, P>{level.data + first, at + first, mine});
      });
    }
  }
}

// f(reader) for the windows that contain cells [x0, x1) of row y.
template <bool kPlanar, typename T, typename C, typename F>
void for_each_reader(Scratch<C>& s, const Link<T>& level, int64_t o, int64_t y, int64_t x0, int64_t x1,
                     const F& f) {
  if constexpr (kPlanar)
    for_each_row_reader(s, level, o, y, x1 - x0, f);
  else
    for_each_cell_reader(level, o, y, x0, f);
}

template <bool kPlanar, typename T>
bool has_one_reader(const Link<T>& level, int64_t y, int64_t x) {
  const Range lines = level.table.y.cells[y], cells = level.table.x.cells[x];
  return (lines.end - lines.begin) * (kPlanar ? level.table.x.widest : cells.end - cells.begin) == 1;
}

// Adds to s.sum the gradients that reach cells [x0, x1), n elements, of row y.
template <bool kPlanar, typename T, typename C>
void add_maximum_grad(Scratch<C>& s, const Link<T>& level, int64_t o, int64_t y, int64_t x0, int64_t x1,
                      int64_t n) {
  for_each_reader<kPlanar>(s, level, o, y, x0, x1, [&](const auto& reader) {
    C* sum = s.sum.data();
    for_each_lane(n, [=](int64_t i) { sum[i] += reader.of(i); });
  });
}

// out = pass + add, or the latter alone where pass is null.
template <typename T, typename Add>
void write_sum(const T* pass, const Add& add, int64_t n, T* out) {
  if (pass != nullptr)
    for_each_lane(n, [=](int64_t i) { write(out, i, read(pass, i) + add(i)); });
  else
    for_each_lane(n, [=](int64_t i) { write(out, i, add(i)); });
}

}  // namespace detectron_libra
