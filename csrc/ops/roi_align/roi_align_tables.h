// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: what the kernels know of every box before they touch a feature. A bin's weights factor into one axis
// times the other, so a box needs two short sparse matrices, cells x bins, and no weight is computed twice.
#include <algorithm>
#include <atomic>
#include <vector>

#include "common/parallel.h"
#include "ops/roi_align/roi_align_host.h"

namespace detectron_libra {

template <typename A>
struct Term {
  int64_t at;
  A weight;
};

// Rows of a sparse matrix; terms of weight 0 are left out, so that they read nothing.
template <typename A>
struct SparseRows {
  std::vector<int64_t> first{0};
  std::vector<Term<A>> terms;

  const Term<A>* begin(int64_t row) const { return terms.data() + first[row]; }
  const Term<A>* end(int64_t row) const { return terms.data() + first[row + 1]; }
};

// One axis of a box. Cells are counted from `begin`; samples on one cell are one term.
template <typename A>
struct AxisTable {
  int64_t begin = 0, cells = 0;
  SparseRows<A> of_bin, of_cell;  // a bin's cells; a cell's bins

  void fill(const RoiAxis& axis, int64_t bins, int64_t length) {
    for (int64_t b = 0; b < bins; ++b) {
      for (int i = 0; i < axis.grid; ++i) {
        const Sample s = roi_sample(axis, int(b), i, length);
        add(s.low, A(s.low_weight));
        add(s.high, A(s.high_weight));
      }
      of_bin.first.push_back(int64_t(of_bin.terms.size()));
    }
    if (of_bin.terms.empty()) return;
    const auto by_cell = [](const Term<A>& a, const Term<A>& b) { return a.at < b.at; };
    const auto [low, high] = std::minmax_element(of_bin.terms.begin(), of_bin.terms.end(), by_cell);
    begin = low->at;
    cells = high->at - begin + 1;
    for (Term<A>& t : of_bin.terms) t = {t.at - begin, t.weight / A(axis.grid)};
  }

  // Takes cells nearby as well, which no bin reads, for a row of whole vectors.
  void widen(int64_t length) {
    constexpr int64_t kLanes = 8;
    cells = std::min((cells + kLanes - 1) / kLanes * kLanes, length);
    const int64_t before = std::max<int64_t>(begin + cells - length, 0);
    begin -= before;
    for (Term<A>& t : of_bin.terms) t.at += before;
  }

  void transpose() {
    const int64_t bins = int64_t(of_bin.first.size()) - 1;
    of_cell.first.assign(cells + 1, 0);
    for (const Term<A>& t : of_bin.terms) ++of_cell.first[t.at + 1];
    for (int64_t i = 0; i < cells; ++i) of_cell.first[i + 1] += of_cell.first[i];
    of_cell.terms.resize(of_bin.terms.size());
    std::vector<int64_t> next(of_cell.first.begin(), of_cell.first.end() - 1);
    for (int64_t b = 0; b < bins; ++b)
      for (auto* t = of_bin.begin(b); t != of_bin.end(b); ++t) of_cell.terms[next[t->at]++] = {b, t->weight};
  }

 private:
  // Neighbouring samples share cells: the one looked for is among the last, if it is there.
  void add(int64_t cell, A weight) {
    if (cell < 0 || weight == 0) return;
    for (int64_t i = int64_t(of_bin.terms.size()) - 1; i >= of_bin.first.back(); --i) {
      if (of_bin.terms[i].at != cell) continue;
      of_bin.terms[i].weight += weight;
      return;
    }
    of_bin.terms.push_back({cell, weight});
  }
};

template <typename A>
struct BoxTable {
  int64_t image = -1, level = 0;
  AxisTable<A> y, x;

  bool empty() const { return y.cells == 0 || x.cells == 0; }
};

// One table per box; that of a box without samples, or of no image, is empty.
template <typename A>
std::vector<BoxTable<A>> box_tables(const RoiBoxes& rois, const std::vector<View>& levels, int64_t images,
                                    bool planar, bool transposed) {
  std::vector<BoxTable<A>> tables(rois.size());
  const int64_t* image_of = rois.image_index.const_data_ptr<int64_t>();
  parallel_ranges(rois.size(), 32, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (image_of[r] < 0 || image_of[r] >= images) continue;
      const Roi roi = roi_of(rois.box(r), rois.options, rois.scales.data(), int(levels.size()));
      BoxTable<A>& table = tables[r];
      if (roi.empty()) continue;
      table.image = image_of[r], table.level = roi.level;
      table.y.fill(roi.y, rois.options.output_size, levels[roi.level].height);
      table.x.fill(roi.x, rois.options.output_size, levels[roi.level].width);
      if (table.empty()) continue;
      if (planar) table.x.widen(levels[roi.level].width);
      if (!transposed) continue;
      table.y.transpose();
      table.x.transpose();
    }
  });
  return tables;
}

// Boxes that read something, in their order, of each (image, level): [image * levels + level].
template <typename A>
std::vector<std::vector<int64_t>> boxes_by_level(const std::vector<BoxTable<A>>& tables, int64_t images,
                                                 int64_t levels) {
  std::vector<std::vector<int64_t>> found(images * levels);
  for (size_t r = 0; r < tables.size(); ++r)
    if (!tables[r].empty()) found[tables[r].image * levels + tables[r].level].push_back(int64_t(r));
  return found;
}

// work(next), with next() giving a task that nobody else has, until it gives `tasks`: tasks differ in size.
template <typename Work>
void share_tasks(int64_t tasks, const Work& work) {
  std::atomic<int64_t> taken{0};
  const auto next = [&] { return std::min(taken.fetch_add(1, std::memory_order_relaxed), tasks); };
  parallel_ranges(tasks, 1, [&](int64_t, int64_t) { work(next); });
}

}  // namespace detectron_libra
