// SPDX-License-Identifier: Apache-2.0
// CPU kernels of the balanced feature pyramid: each row of an output is owned by one thread, so that results
// do not depend on the number of threads and no gradient needs an atomic addition.
#include <torch/csrc/stable/library.h>

#include "ops/pyramid/pyramid_runs.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

template <typename T, bool kPlanar>
void integrate(const Integration& job, int64_t refine) {
  using C = accumulate_t<T>;
  const View to = view_of(job.out, !kPlanar);
  const int64_t inner = kPlanar ? 1 : to.inner, count = int64_t(job.levels.size());
  Links<T> links;
  for (int64_t l = 0; l < count; ++l) {
    const View view = view_of(job.levels[l], !kPlanar);
    const T* data = job.levels[l].const_data_ptr<T>();
    links.push_back(l < refine ? link_of(data, view, pool_table(view, to), {}, job.positions(l))
                               : link_of(data, view, nearest_table(view, to)));
  }
  T* out = job.out.mutable_data_ptr<T>();
  for_each_run<kPlanar, C>(
      {to}, links, [&](Scratch<C>& s, size_t, int64_t o, int64_t y, int64_t x0, int64_t x1) {
        const int64_t n = (x1 - x0) * inner, first = to.at(o, y, x0);
        clear(s, n);
        for (int64_t l = 0; l < count; ++l) {
          if (l < refine && links[l].positions.data == nullptr)
            add_maximum<kPlanar>(s, links[l], o, y, x0, x1, NoPlaces{});
          else if (l < refine)
            with_positions(links[l].positions,
                           [&](auto* at) { add_maximum<kPlanar>(s, links[l], o, y, x0, x1, at + first); });
          else
            with_nearest<kPlanar>(s, links[l], o, y, x0, x1, [&](const auto* values) {
              sum_lines<1, true>(values, 0, n, s.sum.data());
            });
        }
        const C divisor = C(count);
        const C* sum = s.sum.data();
        write_sum<T>(nullptr, [=](int64_t i) { return sum[i] / divisor; }, n, out + first);
      });
}

template <typename T, bool kPlanar>
void integrate_backward(const IntegrationGrad& job, int64_t refine) {
  using C = accumulate_t<T>;
  const View from = view_of(job.grad, !kPlanar);
  const auto shares = shares_of<T>(job.grad, int64_t(job.grads.size()));
  Links<C> links;
  std::vector<View> to;
  std::vector<const T*> passed;
  std::vector<T*> outs;
  for (int64_t l = 0; l < int64_t(job.grads.size()); ++l) {
    to.push_back(view_of(job.grads[l], !kPlanar));
    passed.push_back(job.passed_ptr<T>(l));
    outs.push_back(job.grads[l].template mutable_data_ptr<T>());
    links.push_back(l < refine ? link_of<C>(shares.get(), from, pool_table(from, to[l]),
                                            pool_table(to[l], from), &job.argmax[l])
                               : link_of<C>(shares.get(), from, copies_table(from, to[l])));
  }
  for_each_run<kPlanar, C>(
      to, links, [&](Scratch<C>& s, size_t l, int64_t o, int64_t y, int64_t x0, int64_t x1) {
        const int64_t n = (x1 - x0) * (kPlanar ? 1 : from.inner), first = to[l].at(o, y, x0);
        const T* pass = passed[l];
        T* out = outs[l];
        bool written = false;
        if (int64_t(l) >= refine) {
          clear(s, n);
          add_copies<kPlanar>(s, links[l], o, y, x0, x1);
        } else if (has_one_reader<kPlanar>(links[l], y, x0)) {
          for_each_reader<kPlanar>(s, links[l], o, y, x0, x1, [&](const auto& reader) {
            write_sum(pass ? pass + first : pass, [=](int64_t i) { return reader.of(i); }, n, out + first);
          });
          written = true;
        } else {
          clear(s, n);
          add_maximum_grad<kPlanar>(s, links[l], o, y, x0, x1, n);
        }
        if (!written) write_with_sum(pass, s.sum.data(), first, n, out);
      });
}

template <typename T, bool kPlanar>
void strengthen(const Strengthening& job, int64_t refine) {
  using C = accumulate_t<T>;
  const View from = view_of(job.refined, !kPlanar);
  const T* refined = job.refined.const_data_ptr<T>();
  Links<T> links;
  std::vector<View> to;
  std::vector<const T*> levels;
  std::vector<T*> outs;
  for (int64_t l = 0; l < int64_t(job.levels.size()); ++l) {
    to.push_back(view_of(job.levels[l], !kPlanar));
    levels.push_back(job.levels[l].template const_data_ptr<T>());
    outs.push_back(job.out[l].template mutable_data_ptr<T>());
    links.push_back(l > refine
                        ? link_of(refined, from, pool_table(from, to[l]), {}, &job.argmax[l - refine - 1])
                        : link_of(refined, from, nearest_table(from, to[l])));
  }
  for_each_run<kPlanar, C>(
      to, links,
      [&](Scratch<C>& s, size_t l, int64_t o, int64_t y, int64_t x0, int64_t x1) {
        const int64_t n = (x1 - x0) * (kPlanar ? 1 : from.inner), first = to[l].at(o, y, x0);
        const T* level = levels[l];
        T* out = outs[l];
        if (int64_t(l) <= refine) {
          with_nearest<kPlanar>(s, links[l], o, y, x0, x1, [&](const auto* values) {
            write_sum(level + first, [=](int64_t i) { return read(values, i); }, n, out + first);
          });
          return;
        }
        clear(s, n);
        with_positions(links[l].positions,
                       [&](auto* at) { add_maximum<kPlanar>(s, links[l], o, y, x0, x1, at + first); });
        write_with_sum(level, s.sum.data(), first, n, out);
      },
      /*backwards=*/true);
}

template <typename T, bool kPlanar>
void strengthen_backward(const StrengtheningGrad& job, int64_t refine) {
  using C = accumulate_t<T>;
  const View to = view_of(job.grad_refined, !kPlanar);
  Links<T> links;
  for (int64_t l = 0; l < int64_t(job.grads.size()); ++l) {
    const View view = view_of(job.grads[l], !kPlanar);
    const T* data = job.grads[l].const_data_ptr<T>();
    links.push_back(l > refine ? link_of(data, view, pool_table(view, to), pool_table(to, view),
                                         &job.argmax[l - refine - 1])
                               : link_of(data, view, copies_table(view, to)));
  }
  T* out = job.grad_refined.mutable_data_ptr<T>();
  for_each_run<kPlanar, C>({to}, links,
                           [&](Scratch<C>& s, size_t, int64_t o, int64_t y, int64_t x0, int64_t x1) {
                             const int64_t n = (x1 - x0) * (kPlanar ? 1 : to.inner);
                             clear(s, n);
                             for (int64_t l = 0; l < int64_t(links.size()); ++l) {
                               if (l > refine)
                                 add_maximum_grad<kPlanar>(s, links[l], o, y, x0, x1, n);
                               else
                                 add_copies<kPlanar>(s, links[l], o, y, x0, x1);
                             }
                             write_with_sum<T>(nullptr, s.sum.data(), to.at(o, y, x0), n, out);
                           });
}

std::tuple<Tensor, TensorList> integrate_cpu(TensorList levels, int64_t refine, bool positions) {
  const Integration job = prepare_integrate(levels, refine, positions);
  dispatch_layout(job.out.scalar_type(), job.channels_last, "pyramid_integrate",
                  [&]<typename T, bool kPlanar>() { integrate<T, kPlanar>(job, refine); });
  return {job.out, job.argmax};
}

TensorList integrate_backward_cpu(const Tensor& grad, OptionalTensors passed, TensorList argmax,
                                  std::vector<int64_t> sizes, int64_t refine) {
  const IntegrationGrad job = prepare_integrate_backward(grad, passed, argmax, sizes, refine);
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
