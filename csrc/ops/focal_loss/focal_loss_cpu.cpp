// SPDX-License-Identifier: Apache-2.0
// CPU kernel of focal_loss: a task is a row of cells of one image and level, whose sum has its own place.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/parallel.h"
#include "ops/focal_loss/focal_loss_rows.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

// Where a level's rows of cells lie in memory.
struct Steps {
  int64_t image, row, cell, channel;

  Steps(const Tensor& logits, bool channels_last) {
    const int64_t c = logits.size(1), h = logits.size(2), w = logits.size(3);
    image = c * h * w;
    row = channels_last ? w * c : w;
    cell = channels_last ? c : 1;
    channel = channels_last ? 1 : h * w;
  }
};

template <typename T, typename F>
double row_sum(const FocalJob& job, const FocalOptions& options, const F& focal, const FocalLevel<T>& level,
               const Steps& steps, bool channels_last, int64_t offset, accumulate_t<T> out,
               FocalRow<accumulate_t<T>>& row) {
  using C = accumulate_t<T>;
  const int64_t width = level.width, values = options.per_anchor();
  double total = 0;
  vectorized([&] {
    for (int64_t a = 0; a < job.cell_anchors; ++a) {
      const int32_t* label = row.label.data() + a * width;
      const C* factor = row.factor.data() + a * width;
      const int64_t first = offset + a * values * steps.channel;
      const T* logits = level.logits + first;
      T* gradient = level.gradient ? level.gradient + first : nullptr;
      if (options.softmax) {
        total += softmax_cells<T>(options, logits, gradient, width, steps.channel, steps.cell, label, factor,
                                  out, row);
      } else if (channels_last) {
        for (int64_t x = 0; x < width; ++x) {
          T* to = gradient ? gradient + x * steps.cell : nullptr;
          if (factor[x] == C(0)) {
            if (to) std::fill_n(to, values, T(0));
            continue;
          }
          total += sigmoid_anchor<T>(focal, logits + x * steps.cell, to, values, label[x], factor[x], out,
                                     row.column.data(), row.value.data());
        }
      } else {
        Lanes<C> lanes;
        for (int64_t c = 0; c < values; ++c) {
          T* to = gradient ? gradient + c * steps.channel : nullptr;
          sigmoid_class<T>(focal, logits + c * steps.channel, to, width, int32_t(c + 1), label, factor,
                           row.column[c], out, row.value.data(), lanes);
        }
        total += lanes.total();
      }
    }
  });
  return total;
}

template <typename T, typename F>
double focal_sum(const FocalJob& job, const FocalOptions& options, const F& focal, accumulate_t<T> out) {
  std::vector<double> sums;
  for (size_t l = 0; l < job.logits.size(); ++l) {
    const bool last = job.channels_last[l];
    const FocalLevel<T> level = job.level<T>(l);
    const Steps steps(job.logits[l], last);
    std::vector<double> partial(job.images * level.height);
    const int64_t work = std::max<int64_t>(1, level.width * job.logits[l].size(1));
    parallel_ranges(int64_t(partial.size()), std::max<int64_t>(1, kGrain / work),
                    [&](int64_t begin, int64_t end) {
                      FocalRow<accumulate_t<T>> row(level.width, job.cell_anchors, options.num_classes,
                                                    job.class_weights());
                      for (int64_t task = begin; task < end; ++task) {
                        const int64_t n = task / level.height, y = task % level.height;
                        row.fill(job, options, level.width, level.first, n, y);
                        partial[task] = row_sum<T>(job, options, focal, level, steps, last,
                                                   n * steps.image + y * steps.row, out, row);
                      }
                    });
    sums.push_back(sum_in_order(partial));
  }
  return sum_in_order(sums);
}

std::tuple<Tensor, TensorList> focal_loss_cpu(TensorList logits, const Tensor& labels,
                                              const optional<Tensor>& weight,
                                              const optional<Tensor>& class_weight,
                                              const optional<Tensor>& normalizer, double scale, double alpha,
                                              double gamma, int64_t num_classes, bool softmax,
                                              bool with_gradient) {
  const FocalOptions options{scale, alpha, gamma, num_classes, softmax};
  FocalJob job = prepare_focal_loss(logits, labels, weight, class_weight, normalizer, options, with_gradient);
  LIBRA_DISPATCH_FLOATING(logits[0].scalar_type(), "focal_loss_sum", [&] {
    using C = accumulate_t<scalar_t>;
    const double factor = factor_on_host<C>(scale, normalizer);
    double sum = 0;
    if (gamma == 2)
      sum = focal_sum<scalar_t>(job, options, SigmoidFocal<C, true>{C(alpha), C(gamma)}, C(factor));
    else
      sum = focal_sum<scalar_t>(job, options, SigmoidFocal<C, false>{C(alpha), C(gamma)}, C(factor));
    *job.sum.mutable_data_ptr<C>() = C(sum * factor);
  });
  return {job.sum, job.gradients};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) { m.impl("focal_loss_sum", TORCH_BOX(&focal_loss_cpu)); }
}  // namespace detectron_libra
