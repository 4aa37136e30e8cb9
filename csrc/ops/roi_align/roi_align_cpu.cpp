// SPDX-License-Identifier: Apache-2.0
// CPU kernels of roi_align. channels_last: a task is a box forward, a row of a level backward. Contiguous: a
// task is a channel of an image, whose planes stay in the cache while its boxes go by. Every number has one
// owner, which adds the boxes in their order: the result does not depend on the threads.
#include <torch/csrc/stable/library.h>

#include "ops/roi_align/roi_align_sums.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

template <typename T>
using Tables = std::vector<BoxTable<accumulate_t<T>>>;

std::vector<View> views_of(const TensorList& levels, bool channels_last) {
  std::vector<View> views;
  for (const Tensor& t : levels) views.push_back(view_of(t, channels_last));
  return views;
}

template <typename T>
void pool_channels_last(const RoiPooling& job, const std::vector<View>& views, const Tables<T>& tables) {
  const int64_t side = job.rois.options.output_size, per_box = side * side * views[0].inner;
  T* out = job.out.mutable_data_ptr<T>();
  share_tasks(int64_t(tables.size()), [&](const auto& next) {
    std::vector<accumulate_t<T>> sum(views[0].inner);
    for (int64_t r = next(); r < int64_t(tables.size()); r = next()) {
      const auto& box = tables[r];
      T* to = out + r * per_box;
      if (box.empty()) {
        std::fill_n(to, per_box, T(0));
        continue;
      }
      const View& level = views[box.level];
      const T* image = job.levels[box.level].template const_data_ptr<T>() + level.at(box.image, 0, 0);
      vectorized([&] { pool_box(box, image, level, side, sum.data(), to); });
    }
  });
}

template <typename T>
void pool_planar(const RoiPooling& job, const std::vector<View>& views, const Tables<T>& tables) {
  const int64_t side = job.rois.options.output_size, channels = job.out.size(1);
  const int64_t images = job.levels[0].size(0), count = int64_t(views.size());
  const auto boxes = boxes_by_level(tables, images, count);
  int64_t widest = 0;
  for (const View& v : views) widest = std::max(widest, v.width);
  T* out = job.out.mutable_data_ptr<T>();
  for (size_t r = 0; r < tables.size(); ++r)
    if (tables[r].empty()) std::fill_n(out + r * channels * side * side, channels * side * side, T(0));
  share_tasks(images * channels, [&](const auto& next) {
    std::vector<accumulate_t<T>> rows(side * widest);
    for (int64_t task = next(); task < images * channels; task = next()) {
      for (int64_t l = 0; l < count; ++l) {
        const T* plane = job.levels[l].template const_data_ptr<T>() + views[l].at(task, 0, 0);
        vectorized([&] {
          for (const int64_t r : boxes[task / channels * count + l])
            pool_plane(tables[r], plane, views[l].width, side, rows.data(),
                       out + (r * channels + task % channels) * side * side);
        });
      }
    }
  });
}

// sums(target): adds everything to n zeros, in place where the target can hold sums.
template <typename T, typename Sums>
void sum_into(T* target, int64_t n, std::vector<accumulate_t<T>>& scratch, const Sums& sums) {
  using A = accumulate_t<T>;
  vectorized([&] {
    if constexpr (std::is_same_v<T, A>) {
      std::fill_n(target, n, A(0));
      sums(target);
    } else {
      A* sum = scratch.data();
      for (int64_t i = 0; i < n; ++i) sum[i] = 0;
      sums(sum);
      for (int64_t i = 0; i < n; ++i) write(target, i, sum[i]);
    }
  });
}

// The tasks are rows of a level (channels_last) or planes (contiguous); `first` is the first task of a level.
template <typename T, bool kPlanar>
void unpool(const RoiPoolingGrad& job, const std::vector<View>& views, int64_t images,
            const Tables<T>& tables) {
  using A = accumulate_t<T>;
  const int64_t side = job.rois.options.output_size, channels = job.grad.size(1);
  const int64_t count = int64_t(views.size());
  const auto boxes = boxes_by_level(tables, images, count);
  std::vector<int64_t> first{0};
  int64_t largest = 0, widest = 0;
  for (const View& v : views) {
    first.push_back(first.back() + (kPlanar ? v.outer : v.outer * v.height));
    largest = std::max(largest, kPlanar ? v.height * v.width : v.width * v.inner);
    widest = std::max(widest, v.width);
  }
  const T* grad = job.grad.template const_data_ptr<T>();
  share_tasks(first.back(), [&](const auto& next) {
    std::vector<A> scratch(std::is_same_v<T, A> ? 0 : largest), rows(kPlanar ? side * widest : 0);
    for (int64_t task = next(); task < first.back(); task = next()) {
      const int64_t l = std::upper_bound(first.begin(), first.end(), task) - first.begin() - 1;
      const View& v = views[l];
      const int64_t own = task - first[l], n = own / (kPlanar ? channels : v.height);
      const int64_t size = kPlanar ? v.height * v.width : v.width * v.inner;
      const auto& mine = boxes[n * count + l];
      T* target = job.grads[l].template mutable_data_ptr<T>() + own * size;
      sum_into(target, size, scratch, [&](A* sum) {
        if constexpr (kPlanar)
          for (const int64_t r : mine)
            add_box_to_plane(tables[r], grad + (r * channels + own % channels) * side * side, v.width, side,
                             rows.data(), sum);
        else
          add_boxes_to_row<T>(tables, mine, grad, own % v.height, side, channels, sum);
      });
    }
  });
}

Tensor roi_align_cpu(TensorList levels, const Tensor& boxes, const Tensor& image_index,
                     std::vector<int64_t> strides, int64_t output_size, int64_t sampling_ratio, bool aligned,
                     double canonical_scale, int64_t canonical_level, int64_t min_level, double extent) {
  const RoiAlignOptions options{int(output_size),       int(sampling_ratio),  aligned,
                                float(canonical_scale), int(canonical_level), int(min_level),
                                float(extent)};
  const RoiPooling job = prepare_roi_align(levels, boxes, image_index, strides, options);
  const std::vector<View> views = views_of(job.levels, job.channels_last);
  dispatch_layout(job.out.scalar_type(), job.channels_last, "roi_align", [&]<typename T, bool kPlanar>() {
    const Tables<T> tables = box_tables<accumulate_t<T>>(job.rois, views, levels[0].size(0), kPlanar, false);
    kPlanar ? pool_planar<T>(job, views, tables) : pool_channels_last<T>(job, views, tables);
  });
  return job.out;
}

TensorList roi_align_backward_cpu(const Tensor& grad, const Tensor& boxes, const Tensor& image_index,
                                  int64_t images, std::vector<int64_t> sizes, bool channels_last,
                                  std::vector<int64_t> strides, int64_t output_size, int64_t sampling_ratio,
                                  bool aligned, double canonical_scale, int64_t canonical_level,
                                  int64_t min_level, double extent) {
  const RoiAlignOptions options{int(output_size),       int(sampling_ratio),  aligned,
                                float(canonical_scale), int(canonical_level), int(min_level),
                                float(extent)};
  const RoiPoolingGrad job = prepare_roi_align_backward(grad, boxes, image_index, images, sizes,
                                                        channels_last, strides, options, grad.scalar_type());
  const std::vector<View> views = views_of(job.grads, channels_last);
  dispatch_layout(grad.scalar_type(), channels_last, "roi_align_backward", [&]<typename T, bool kPlanar>() {
    const Tables<T> tables = box_tables<accumulate_t<T>>(job.rois, views, images, kPlanar, true);
    unpool<T, kPlanar>(job, views, images, tables);
  });
  return job.grads;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align_cpu));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward_cpu));
}
}  // namespace detectron_libra
