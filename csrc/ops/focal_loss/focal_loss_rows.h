// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: focal loss of one row of cells of one image, in either memory order. What the anchors of the row learn
// is gathered first, so that the loops over logits read plain arrays.
#include <algorithm>
#include <limits>
#include <vector>

#include "common/half.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/focal_loss/focal_loss_host.h"

namespace detectron_libra {

// Scratch of a thread: one entry per cell of the row, or per class.
template <typename C>
struct FocalRow {
  std::vector<int32_t> label;  // of the row's anchors: [a][x]
  std::vector<C> factor;       // [a][x]; 0 leaves the anchor out
  std::vector<C> column;       // factor of each class of the sigmoid form
  std::vector<C> top, sum, hit, slope;
  std::vector<C> value;  // one block, padded

  FocalRow(int64_t widest, int64_t anchors, int64_t classes, const float* class_weight)
      : label(widest * anchors),
        factor(widest * anchors),
        column(classes, C(1)),
        top(widest),
        sum(widest),
        hit(widest),
        slope(widest),
        value(Lanes<C>::kBlock) {
    if (class_weight != nullptr) std::copy(class_weight, class_weight + classes, column.begin());
  }

  // Reads the labels and weights of row y of image n.
  void fill(const FocalJob& job, const FocalOptions& options, int64_t width, int64_t first, int64_t n,
            int64_t y) {
    const Labels labels = job.label_reader();
    const float *weight = job.weights(), *class_weight = job.class_weights();
    int64_t i = n * job.image_anchors + first + y * width * job.cell_anchors;
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t a = 0; a < job.cell_anchors; ++a, ++i) {
        const int32_t l = labels.get(i);
        C f = l < 0 ? C(0) : (weight ? C(weight[i]) : C(1));
        if (options.softmax && class_weight && l > 0) f *= C(class_weight[l - 1]);
        label[a * width + x] = l;
        factor[a * width + x] = f;
      }
    }
  }
};

// `count` logits of one anchor: a class a column.
template <typename T, typename F, typename C = accumulate_t<T>>
LIBRA_INLINE double sigmoid_anchor(const F& focal, const T* logits, T* gradient, int64_t count, int32_t label,
                                   C weight, C out, const C* column, C* value) {
  constexpr int64_t kBlock = Lanes<C>::kBlock;
  const F f = focal;
  T unwanted[kBlock];  // where no gradient is asked for: one loop serves both, and it is known to vectorise
  Lanes<C> lanes;
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t size = std::min(kBlock, count - first);
    const int32_t hit = int32_t(label - 1 - first);
    const C* columns = column + first;
    const T* x = logits + first;
    T* to = gradient != nullptr ? gradient + first : unwanted;
    for (int32_t i = 0; i < int32_t(size); ++i) {
      const FocalTerm<C> term = f.at(read(x, i), i == hit);
      const C w = weight * columns[i];
      value[i] = w == C(0) ? C(0) : w * term.value;
      write(to, i, w == C(0) ? C(0) : w * out * term.slope);
    }
    for (int64_t i = size; i < kBlock; ++i) value[i] = C(0);
    lanes.add(value);
  }
  return lanes.total();
}

// `count` logits of one class: an anchor a cell.
template <typename T, typename F, typename C = accumulate_t<T>>
LIBRA_INLINE void sigmoid_class(const F& focal, const T* x, T* to, int64_t count, int32_t wanted,
                                const int32_t* label, const C* factor, C column, C out, C* value,
                                Lanes<C>& lanes) {
  constexpr int64_t kBlock = Lanes<C>::kBlock;
  const F f = focal;
  T unwanted[kBlock];
  for (int64_t first = 0; first < count; first += kBlock, x += kBlock, label += kBlock, factor += kBlock) {
    const int64_t size = std::min(kBlock, count - first);
    T* target = to != nullptr ? to + first : unwanted;
    for (int64_t i = 0; i < size; ++i) {
      const FocalTerm<C> term = f.at(read(x, i), label[i] == wanted);
      const C w = factor[i] * column;
      value[i] = w == C(0) ? C(0) : w * term.value;
      write(target, i, w == C(0) ? C(0) : w * out * term.slope);
    }
    for (int64_t i = size; i < kBlock; ++i) value[i] = C(0);
    lanes.add(value);
  }
}

// Softmax of an anchor per cell; the logits of class c of cell x lie at c * class_step + x * cell_step.
template <typename T, typename C = accumulate_t<T>>
LIBRA_INLINE double softmax_cells(const FocalOptions& options, const T* logits, T* gradient, int64_t width,
                                  int64_t class_step, int64_t cell_step, const int32_t* label,
                                  const C* factor, C out, FocalRow<C>& row) {
  const int64_t classes = options.per_anchor();
  C *top = row.top.data(), *sum = row.sum.data(), *hit = row.hit.data(), *slope = row.slope.data();
  for (int64_t x = 0; x < width; ++x) top[x] = -std::numeric_limits<C>::infinity(), sum[x] = hit[x] = C(0);
  for (int64_t c = 0; c < classes; ++c) {
    for (int64_t x = 0; x < width; ++x) {
      const C value = read(logits, c * class_step + x * cell_step);
      top[x] = value > top[x] ? value : top[x];
      hit[x] = label[x] == c ? value : hit[x];
    }
  }
  for (int64_t c = 0; c < classes; ++c)
    for (int64_t x = 0; x < width; ++x)
      sum[x] += exponential(read(logits, c * class_step + x * cell_step) - top[x]);
  double total = 0;
  for (int64_t x = 0; x < width; ++x) {
    top[x] += natural_log(sum[x]);  // from here on the logarithm of the sum of exponentials
    const auto term = softmax_focal<C>(hit[x] - top[x], label[x] > 0, C(options.alpha), C(options.gamma));
    if (factor[x] != C(0)) total += double(factor[x] * term.value);
    slope[x] = factor[x] * out * term.slope;
  }
  for (int64_t c = 0; c < classes && gradient != nullptr; ++c) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t at = c * class_step + x * cell_step;
      const C p = exponential(read(logits, at) - top[x]);
      write(gradient, at, factor[x] == C(0) ? C(0) : slope[x] * ((label[x] == c ? C(1) : C(0)) - p));
    }
  }
  return total;
}

}  // namespace detectron_libra
