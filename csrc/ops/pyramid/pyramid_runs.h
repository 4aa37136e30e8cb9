// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: the runs of outputs of one operator, dealt out to threads, and what their bodies have in common.
#include <algorithm>
#include <memory>

#include "common/parallel.h"
#include "ops/pyramid/pyramid_maximum.h"
#include "ops/pyramid/pyramid_route.h"
#include "ops/pyramid/pyramid_sum.h"

namespace detectron_libra {

template <typename T>
using Links = std::vector<Link<T>>;

// Tasks are kept large enough for a thread, and small enough that all threads have some.
constexpr int64_t kTasks = 64;

template <typename T>
Link<T> link_of(const T* data, const View& view, Resize table, Resize windows = {},
                const torch::stable::Tensor* argmax = nullptr) {
  return {data, view, std::move(table), std::move(windows),
          argmax ? positions_of(*argmax) : Positions{nullptr, false}};
}

// Runs body(scratch, l, o, y, x0, x1) for every run of outputs of the levels `to`. A task is a band of rows:
// the same part of every level, so that what the levels share stays in cache. `backwards`: the last band
// first, for an operator that reads again what the one before it read last.
template <bool kPlanar, typename C, typename T, typename Body>
void for_each_run(const std::vector<View>& to, const Links<T>& links, const Body& body,
                  bool backwards = false) {
  int64_t run = 0, met = 1, most_rows = 1, numel = 0;
  for (const View& v : to) {
    run = std::max(run, kPlanar ? v.width : v.inner);
    most_rows = std::max(most_rows, v.height);
    numel += v.numel();
  }
  for (const auto& link : links) met = std::max(met, link.table.x.widest);
  const int64_t outer = to[0].outer, bands = kPlanar && outer >= kTasks ? 1 : std::min(most_rows, kTasks);
  const int64_t tasks = outer * bands;
  if (numel == 0) return;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, numel / tasks));
  parallel_ranges(tasks, grain, [&](int64_t begin, int64_t end) {
    Scratch<C> scratch(run, met);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t o = task / bands, band = task % bands;
      for (size_t l = 0; l < to.size(); ++l) {
        const int64_t height = to[l].height, width = to[l].width, step = kPlanar ? width : 1;
        for (int64_t y = height * band / bands; y < height * (band + 1) / bands; ++y)
          for (int64_t x = 0; x < width; x += step) body(scratch, l, o, y, x, x + step);
      }
    }
  });
}

template <typename C>
void clear(Scratch<C>& s, int64_t n) {
  std::fill_n(s.sum.begin(), n, C(0));
}

// grad / count, in the type to compute in: divided once, then handed to every cell that has a share.
template <typename T, typename C = accumulate_t<T>>
std::unique_ptr<C[]> shares_of(const torch::stable::Tensor& grad, int64_t count) {
  auto shares = std::make_unique_for_overwrite<C[]>(grad.numel());
  const T* from = grad.const_data_ptr<T>();
  C* to = shares.get();
  parallel_ranges(grad.numel(), kGrain, [&](int64_t begin, int64_t end) {
    const C divisor = C(count);
    for_each_lane(end - begin, [=](int64_t i) { to[begin + i] = read(from, begin + i) / divisor; });
  });
  return shares;
}

// out[first + i] = pass[first + i] + sum[i]
template <typename T, typename C>
void write_with_sum(const T* pass, const C* sum, int64_t first, int64_t n, T* out) {
  write_sum(pass ? pass + first : pass, [=](int64_t i) { return sum[i]; }, n, out + first);
}

}  // namespace detectron_libra
