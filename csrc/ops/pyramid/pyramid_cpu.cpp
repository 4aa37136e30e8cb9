// SPDX-License-Identifier: Apache-2.0
// CPU kernels of the balanced feature pyramid: each row of an output is owned by one thread, so that results
// do not depend on the number of threads and no gradient needs an atomic addition.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/parallel.h"
#include "ops/pyramid/pyramid_rows.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

// Runs fill(scratch, o, y), which sums up row y of plane o, and writes the row: out = sum / divisor.
template <typename T, typename Fill>
void for_each_row(const Tensor& out, bool channels_last, float divisor, Fill fill) {
  const View view = view_of(out, channels_last);
  const int64_t row = view.width * view.inner;
  T* data = out.mutable_data_ptr<T>();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row));
  parallel_ranges(view.outer * view.height, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(view);
    for (int64_t i = begin; i < end; ++i) {
      std::fill(scratch.sum.begin(), scratch.sum.end(), accumulate_t<T>(0));
      fill(scratch, i / view.height, i % view.height);
      for (int64_t k = 0; k < row; ++k) data[i * row + k] = T(scratch.sum[k] / accumulate_t<T>(divisor));
    }
  });
}

template <typename T, bool kPlanar>
void integrate(const Integration& job, int64_t refine) {
  const View to = view_of(job.out, !kPlanar);
  const int64_t count = int64_t(job.levels.size());
  std::vector<View> views;
  std::vector<Resize> tables;
  for (int64_t i = 0; i < count; ++i) {
    views.push_back(view_of(job.levels[i], !kPlanar));
    tables.push_back(i < refine ? pool_table(views[i], to) : nearest_table(views[i], to));
  }
  for_each_row<T>(job.out, !kPlanar, float(count), [&](Scratch<T>& s, int64_t o, int64_t y) {
    for (int64_t i = 0; i < count; ++i) {
      const T* from = job.levels[i].const_data_ptr<T>();
      if (i < refine)
        add_maximum<T, kPlanar>(s, from, views[i], tables[i], positions_of(job.argmax[i]), to.at(o, y, 0), o,
                                y);
      else
        add_cells<T, kPlanar>(s, from, views[i], tables[i], o, y);
    }
  });
}

template <typename T, bool kPlanar>
void integrate_backward(const IntegrationGrad& job, int64_t refine) {
  const View pooled = view_of(job.grad, !kPlanar);
  const T* grad = job.grad.const_data_ptr<T>();
  const float count = float(job.grads.size());
  for (int64_t i = 0; i < int64_t(job.grads.size()); ++i) {
    const View to = view_of(job.grads[i], !kPlanar);
    if (i < refine) {
      const Resize readers = pool_table(pooled, to), windows = pool_table(to, pooled);
      const Positions positions = positions_of(job.argmax[i]);
      for_each_row<T>(job.grads[i], !kPlanar, count, [&](Scratch<T>& s, int64_t o, int64_t y) {
        add_maximum_grad<T, kPlanar>(s, grad, pooled, readers, windows, positions, o, y);
      });
    } else {
      const Resize table = copies_table(pooled, to);
      for_each_row<T>(job.grads[i], !kPlanar, count, [&](Scratch<T>& s, int64_t o, int64_t y) {
        add_cells<T, kPlanar>(s, grad, pooled, table, o, y);
      });
    }
  }
}

template <typename T, bool kPlanar>
void strengthen(const Strengthening& job, int64_t refine) {
  const View from = view_of(job.refined, !kPlanar);
  const T* refined = job.refined.const_data_ptr<T>();
  for (int64_t i = 0; i < int64_t(job.levels.size()); ++i) {
    const View to = view_of(job.levels[i], !kPlanar);
    const T* level = job.levels[i].const_data_ptr<T>();
    const bool pool = i > refine;
    const Resize table = pool ? pool_table(from, to) : nearest_table(from, to);
    const Positions positions = pool ? positions_of(job.argmax[i - refine - 1]) : Positions{nullptr, false};
    for_each_row<T>(job.out[i], !kPlanar, 1.0f, [&](Scratch<T>& s, int64_t o, int64_t y) {
      const int64_t first = to.at(o, y, 0);
      for (size_t k = 0; k < s.sum.size(); ++k) s.sum[k] = accumulate_t<T>(level[first + k]);
      if (pool)
        add_maximum<T, kPlanar>(s, refined, from, table, positions, first, o, y);
      else
        add_cells<T, kPlanar>(s, refined, from, table, o, y);
    });
  }
}

template <typename T, bool kPlanar>
void strengthen_backward(const StrengtheningGrad& job, int64_t refine) {
  const View to = view_of(job.grad_refined, !kPlanar);
  const int64_t count = int64_t(job.grads.size());
  std::vector<View> views;
  std::vector<Resize> readers, windows;
  for (int64_t i = 0; i < count; ++i) {
    views.push_back(view_of(job.grads[i], !kPlanar));
    readers.push_back(i > refine ? pool_table(views[i], to) : copies_table(views[i], to));
    windows.push_back(i > refine ? pool_table(to, views[i]) : Resize{});
  }
  for_each_row<T>(job.grad_refined, !kPlanar, 1.0f, [&](Scratch<T>& s, int64_t o, int64_t y) {
    for (int64_t i = 0; i < count; ++i) {
      const T* grad = job.grads[i].const_data_ptr<T>();
      if (i > refine)
        add_maximum_grad<T, kPlanar>(s, grad, views[i], readers[i], windows[i],
                                     positions_of(job.argmax[i - refine - 1]), o, y);
      else
        add_cells<T, kPlanar>(s, grad, views[i], readers[i], o, y);
    }
  });
}

std::tuple<Tensor, TensorList> integrate_cpu(TensorList levels, int64_t refine) {
  const Integration job = prepare_integrate(levels, refine);
  dispatch_layout(job.out.scalar_type(), job.channels_last, "pyramid_integrate",
                  [&]<typename T, bool kPlanar>() { integrate<T, kPlanar>(job, refine); });
  return {job.out, job.argmax};
}

TensorList integrate_backward_cpu(const Tensor& grad, TensorList argmax, std::vector<int64_t> sizes,
                                  int64_t refine) {
  const IntegrationGrad job = prepare_integrate_backward(grad, argmax, sizes, refine);
  dispatch_layout(grad.scalar_type(), job.channels_last, "pyramid_integrate_backward",
                  [&]<typename T, bool kPlanar>() { integrate_backward<T, kPlanar>(job, refine); });
  return job.grads;
}

std::tuple<TensorList, TensorList> strengthen_cpu(TensorList levels, const Tensor& refined, int64_t refine) {
  const Strengthening job = prepare_strengthen(levels, refined, refine);
  dispatch_layout(refined.scalar_type(), job.channels_last, "pyramid_strengthen",
                  [&]<typename T, bool kPlanar>() { strengthen<T, kPlanar>(job, refine); });
  return {job.out, job.argmax};
}

Tensor strengthen_backward_cpu(TensorList grads, TensorList argmax, int64_t refine) {
  const StrengtheningGrad job = prepare_strengthen_backward(grads, argmax, refine);
  dispatch_layout(job.grad_refined.scalar_type(), job.channels_last, "pyramid_strengthen_backward",
                  [&]<typename T, bool kPlanar>() { strengthen_backward<T, kPlanar>(job, refine); });
  return job.grad_refined;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("pyramid_integrate", TORCH_BOX(&integrate_cpu));
  m.impl("pyramid_integrate_backward", TORCH_BOX(&integrate_backward_cpu));
  m.impl("pyramid_strengthen", TORCH_BOX(&strengthen_cpu));
  m.impl("pyramid_strengthen_backward", TORCH_BOX(&strengthen_backward_cpu));
}
}  // namespace detectron_libra
