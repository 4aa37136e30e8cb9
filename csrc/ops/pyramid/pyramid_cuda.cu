// SPDX-License-Identifier: Apache-2.0
// CUDA kernels of the balanced feature pyramid: one thread per output number, gradients gathered, no atomics.
#include <torch/csrc/stable/library.h>

#include "common/launch.cuh"
#include "ops/pyramid/pyramid_host.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

constexpr int64_t kMaxLevels = 16;  // levels travel to the kernel by value

// One level, and the positions of its maxima where it is pooled.
template <typename T>
struct Level {
  const T* data;
  Positions positions;
  View view;
};

template <typename T>
struct Levels {
  Level<T> level[kMaxLevels];
  int count, refine;
};

struct Cell {
  int64_t o, y, x, c;
};

__device__ __forceinline__ Cell cell_of(int64_t i, const View& v) {
  const int64_t c = i % v.inner, pixel = i / v.inner;
  const int64_t x = pixel % v.width, row = pixel / v.width;
  return {row / v.height, row % v.height, x, c};
}

template <typename T>
__device__ __forceinline__ accumulate_t<T> nearest_at(const Level<T>& from, const View& to, const Cell& p) {
  const int64_t y = nearest(p.y, from.view.height, to.height), x = nearest(p.x, from.view.width, to.width);
  return accumulate_t<T>(from.data[from.view.at(p.o, y, x) + p.c]);
}

// Gradient of nearest: the sum over the cells that copied cell p.
template <typename T>
__device__ __forceinline__ accumulate_t<T> copies_at(const Level<T>& grad, const View& to, const Cell& p) {
  const Range ys = copies(p.y, to.height, grad.view.height), xs = copies(p.x, to.width, grad.view.width);
  accumulate_t<T> sum(0);
  for (int64_t y = ys.begin; y < ys.end; ++y)
    for (int64_t x = xs.begin; x < xs.end; ++x)
      sum += accumulate_t<T>(grad.data[grad.view.at(p.o, y, x) + p.c]);
  return sum;
}

// Maximum of p's window; the first one wins, NaN wins over all. Its position goes to from.positions[i].
template <typename T>
__device__ __forceinline__ accumulate_t<T> maximum_at(const Level<T>& from, const View& to, const Cell& p,
                                                      int64_t i) {
  using A = accumulate_t<T>;
  const Range ys = window(p.y, from.view.height, to.height), xs = window(p.x, from.view.width, to.width);
  A best = -A(INFINITY);
  int32_t offset = 0, at = 0;
  for (int64_t y = ys.begin; y < ys.end; ++y) {
    for (int64_t x = xs.begin; x < xs.end; ++x, ++offset) {
      const A value = A(from.data[from.view.at(p.o, y, x) + p.c]);
      if (value > best || value != value) {
        best = value;
        at = offset;
      }
    }
  }
  if (from.positions.data != nullptr) from.positions.set(i, at);
  return best;
}

// Gradient of the maximum for input cell p of a level shaped `to`: asks the windows that contain it.
template <typename T>
__device__ __forceinline__ accumulate_t<T> maximum_grad_at(const Level<T>& grad, const View& to,
                                                           const Cell& p) {
  const View& pooled = grad.view;
  const Range ys = window(p.y, pooled.height, to.height), xs = window(p.x, pooled.width, to.width);
  accumulate_t<T> sum(0);
  for (int64_t ky = ys.begin; ky < ys.end; ++ky) {
    for (int64_t kx = xs.begin; kx < xs.end; ++kx) {
      const Range down = window(ky, to.height, pooled.height), across = window(kx, to.width, pooled.width);
      const int32_t mine = int32_t((p.y - down.begin) * (across.end - across.begin) + p.x - across.begin);
      const int64_t k = pooled.at(p.o, ky, kx) + p.c;
      if (grad.positions.get(k) == mine) sum += accumulate_t<T>(grad.data[k]);
    }
  }
  return sum;
}

template <typename T>
struct Integrate {
  Levels<T> levels;
  View to;
  T* out;

  __device__ void operator()(int64_t i) const {
    const Cell p = cell_of(i, to);
    accumulate_t<T> sum(0);
    for (int l = 0; l < levels.count; ++l)
      sum += l < levels.refine ? maximum_at(levels.level[l], to, p, i) : nearest_at(levels.level[l], to, p);
    out[i] = T(sum / accumulate_t<T>(levels.count));
  }
};

template <typename T>
struct IntegrateGrad {
  Level<T> grad;
  View to;
  bool pooled;
  accumulate_t<T> count;
  const T* passed;  // added; null: nothing
  T* out;

  __device__ void operator()(int64_t i) const {
    const Cell p = cell_of(i, to);
    const auto mine = (pooled ? maximum_grad_at(grad, to, p) : copies_at(grad, to, p)) / count;
    out[i] = T(passed ? mine + accumulate_t<T>(passed[i]) : mine);
  }
};

template <typename T>
struct Strengthen {
  Level<T> refined;
  View to;
  bool pool;
  const T* level;
  T* out;

  __device__ void operator()(int64_t i) const {
    const Cell p = cell_of(i, to);
    const auto added = pool ? maximum_at(refined, to, p, i) : nearest_at(refined, to, p);
    out[i] = T(accumulate_t<T>(level[i]) + added);
  }
};

template <typename T>
struct StrengthenGrad {
  Levels<T> grads;
  View to;
  T* out;

  __device__ void operator()(int64_t i) const {
    const Cell p = cell_of(i, to);
    accumulate_t<T> sum(0);
    for (int l = 0; l < grads.count; ++l)
      sum += l > grads.refine ? maximum_grad_at(grads.level[l], to, p) : copies_at(grads.level[l], to, p);
    out[i] = T(sum);
  }
};

template <typename T>
Level<T> level_of(const Tensor& t, bool channels_last, const Tensor* argmax = nullptr) {
  return {t.const_data_ptr<T>(), argmax ? positions_of(*argmax) : Positions{nullptr, false},
          view_of(t, channels_last)};
}

// argmax belongs to the levels from `first` on.
template <typename T>
Levels<T> levels_of(const TensorList& tensors, const TensorList& argmax, int64_t first, int64_t refine,
                    bool last) {
  Levels<T> out{};
  out.count = int(tensors.size());
  out.refine = int(refine);
  for (int64_t i = 0; i < out.count; ++i) {
    const bool has = i >= first && i - first < int64_t(argmax.size());
    out.level[i] = level_of<T>(tensors[i], last, has ? &argmax[i - first] : nullptr);
  }
  return out;
}

void check_count(size_t levels) {
  STD_TORCH_CHECK(int64_t(levels) <= kMaxLevels, "at most ", kMaxLevels, " levels on CUDA, got ", levels);
}

std::tuple<Tensor, TensorList> integrate_cuda(TensorList levels, int64_t refine, bool positions) {
  check_count(levels.size());
  const Integration job = prepare_integrate(levels, refine, positions);
  dispatch_layout(
      job.out.scalar_type(), job.channels_last, "pyramid_integrate", [&]<typename T, bool kPlanar>() {
        for_each(job.out, job.out.numel(),
                 Integrate<T>{levels_of<T>(job.levels, job.argmax, 0, refine, !kPlanar),
                              view_of(job.out, !kPlanar), job.out.template mutable_data_ptr<T>()});
      });
  return {job.out, job.argmax};
}

TensorList integrate_backward_cuda(const Tensor& grad, OptionalTensors passed, TensorList argmax,
                                   std::vector<int64_t> sizes, int64_t refine) {
  const IntegrationGrad job = prepare_integrate_backward(grad, passed, argmax, sizes, refine);
  dispatch_layout(
      grad.scalar_type(), job.channels_last, "pyramid_integrate_backward", [&]<typename T, bool kPlanar>() {
        for (int64_t i = 0; i < int64_t(job.grads.size()); ++i) {
          const bool pooled = i < refine;
          for_each(
              job.grad, job.grads[i].numel(),
              IntegrateGrad<T>{level_of<T>(job.grad, !kPlanar, pooled ? &job.argmax[i] : nullptr),
                               view_of(job.grads[i], !kPlanar), pooled, accumulate_t<T>(job.grads.size()),
                               job.template passed_ptr<T>(i), job.grads[i].template mutable_data_ptr<T>()});
        }
      });
  return job.grads;
}

std::tuple<TensorList, TensorList> strengthen_cuda(TensorList levels, const Tensor& refined, int64_t refine) {
  const Strengthening job = prepare_strengthen(levels, refined, refine);
  dispatch_layout(
      refined.scalar_type(), job.channels_last, "pyramid_strengthen", [&]<typename T, bool kPlanar>() {
        for (int64_t i = 0; i < int64_t(job.levels.size()); ++i) {
          const bool pool = i > refine;
          for_each(
              job.refined, job.out[i].numel(),
              Strengthen<T>{level_of<T>(job.refined, !kPlanar, pool ? &job.argmax[i - refine - 1] : nullptr),
                            view_of(job.out[i], !kPlanar), pool, job.levels[i].template const_data_ptr<T>(),
                            job.out[i].template mutable_data_ptr<T>()});
        }
      });
  return {job.out, job.argmax};
}

Tensor strengthen_backward_cuda(TensorList grads, TensorList argmax, int64_t refine) {
  check_count(grads.size());
  const StrengtheningGrad job = prepare_strengthen_backward(grads, argmax, refine);
  const Tensor& out = job.grad_refined;
  dispatch_layout(
      out.scalar_type(), job.channels_last, "pyramid_strengthen_backward", [&]<typename T, bool kPlanar>() {
        for_each(out, out.numel(),
                 StrengthenGrad<T>{levels_of<T>(job.grads, job.argmax, refine + 1, refine, !kPlanar),
                                   view_of(out, !kPlanar), out.template mutable_data_ptr<T>()});
      });
  return job.grad_refined;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("pyramid_integrate", TORCH_BOX(&integrate_cuda));
  m.impl("pyramid_integrate_backward", TORCH_BOX(&integrate_backward_cuda));
  m.impl("pyramid_strengthen", TORCH_BOX(&strengthen_cuda));
  m.impl("pyramid_strengthen_backward", TORCH_BOX(&strengthen_backward_cuda));
}
}  // namespace detectron_libra
