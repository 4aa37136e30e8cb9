// SPDX-License-Identifier: Apache-2.0
// CPU kernels of roi_align. Forward: a thread owns boxes. Backward: a thread owns channels of an image, and
// adds its boxes in order, so that the result does not depend on the number of threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/parallel.h"
#include "ops/roi_align/roi_align_host.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

constexpr int64_t kChannelBlock = 32;  // channels a thread takes at once: weights are computed once for them

// All samples of a box on each axis; sample i of bin b is at [b * grid + i].
struct Grid {
  std::vector<Sample> y, x;

  void fill(const Roi& roi, int side, const View& level) {
    fill(y, roi.y, side, level.height);
    fill(x, roi.x, side, level.width);
  }

 private:
  static void fill(std::vector<Sample>& samples, const RoiAxis& axis, int side, int64_t length) {
    samples.clear();
    for (int b = 0; b < side; ++b)
      for (int i = 0; i < axis.grid; ++i) samples.push_back(roi_sample(axis, b, i, length));
  }
};

// Calls use(offset of the cell, weight) for the cells that bin (by, bx) reads.
template <typename Use>
void for_each_cell(const Grid& grid, const Roi& roi, int64_t by, int64_t bx, const View& level,
                   const Use& use) {
  for (int64_t iy = by * roi.y.grid; iy < (by + 1) * roi.y.grid; ++iy) {
    const Sample& y = grid.y[iy];
    if (y.low < 0) continue;
    for (int64_t ix = bx * roi.x.grid; ix < (bx + 1) * roi.x.grid; ++ix) {
      const Sample& x = grid.x[ix];
      if (x.low < 0) continue;
      use(level.at(0, y.low, x.low), y.low_weight * x.low_weight);
      use(level.at(0, y.low, x.high), y.low_weight * x.high_weight);
      use(level.at(0, y.high, x.low), y.high_weight * x.low_weight);
      use(level.at(0, y.high, x.high), y.high_weight * x.high_weight);
    }
  }
}

template <typename T, bool kPlanar>
void roi_align(const RoiPooling& job) {
  using A = accumulate_t<T>;
  const int side = job.rois.options.output_size;
  const int64_t images = job.levels[0].size(0), channels = job.levels[0].size(1);
  const int64_t planes = kPlanar ? channels : 1, inner = kPlanar ? 1 : channels;
  const View to = view_of(job.out, !kPlanar);
  const int64_t* image_of = job.rois.image_index.const_data_ptr<int64_t>();
  T* out = job.out.mutable_data_ptr<T>();
  parallel_ranges(job.rois.size(), 1, [&](int64_t begin, int64_t end) {
    Grid grid;
    std::vector<A> sum(inner);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = image_of[r];
      if (n < 0 || n >= images) {
        std::fill_n(out + to.at(r * planes, 0, 0), channels * side * side, T(0));
        continue;
      }
      const Roi roi =
          roi_of(job.rois.box(r), job.rois.options, job.rois.scales.data(), int(job.levels.size()));
      const View level = view_of(job.levels[roi.level], !kPlanar);
      const T* features = job.levels[roi.level].const_data_ptr<T>();
      if (roi.empty())
        std::fill_n(out + to.at(r * planes, 0, 0), channels * side * side, T(0));
      else
        grid.fill(roi, side, level);
      for (int64_t p = 0; p < planes && !roi.empty(); ++p) {
        const T* plane = features + level.at(n * planes + p, 0, 0);
        for (int64_t bin = 0; bin < int64_t(side) * side; ++bin) {
          std::fill(sum.begin(), sum.end(), A(0));
          for_each_cell(grid, roi, bin / side, bin % side, level, [&](int64_t cell, float weight) {
            for (int64_t c = 0; c < inner; ++c) sum[c] += A(weight) * A(plane[cell + c]);
          });
          T* target = out + to.at(r * planes + p, bin / side, bin % side);
          for (int64_t c = 0; c < inner; ++c) target[c] = T(sum[c] / A(roi.count()));
        }
      }
    }
  });
}

// Adds the gradient of box r to channels [first, last) of its image.
template <typename T, bool kPlanar>
void scatter(const RoiPoolingGrad& job, const Roi& roi, const Grid& grid, int64_t r, int64_t n, int64_t first,
             int64_t last) {
  using A = accumulate_t<T>;
  const int side = job.rois.options.output_size;
  const int64_t channels = job.grad.size(1);
  const int64_t planes = kPlanar ? last - first : 1, inner = kPlanar ? 1 : last - first;
  const View level = view_of(job.grads[roi.level], !kPlanar), from = view_of(job.grad, !kPlanar);
  const A count = A(roi.count());
  for (int64_t p = 0; p < planes; ++p) {
    A* plane = job.grads[roi.level].template mutable_data_ptr<A>() +
               (kPlanar ? level.at(n * channels + first + p, 0, 0) : level.at(n, 0, 0) + first);
    for (int64_t bin = 0; bin < int64_t(side) * side; ++bin) {
      const T* grad = job.grad.template const_data_ptr<T>() +
                      (kPlanar ? from.at(r * channels + first + p, bin / side, bin % side)
                               : from.at(r, bin / side, bin % side) + first);
      for_each_cell(grid, roi, bin / side, bin % side, level, [&](int64_t cell, float weight) {
        for (int64_t c = 0; c < inner; ++c) plane[cell + c] += A(weight) * (A(grad[c]) / count);
      });
    }
  }
}

template <typename T, bool kPlanar>
void roi_align_backward(RoiPoolingGrad& job, int64_t images) {
  for (Tensor& grad : job.grads) torch::stable::zero_(grad);
  const int64_t channels = job.grad.size(1), blocks = (channels + kChannelBlock - 1) / kChannelBlock;
  const int64_t* image_of = job.rois.image_index.const_data_ptr<int64_t>();
  parallel_ranges(images * blocks, 1, [&](int64_t begin, int64_t end) {
    Grid grid;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / blocks, first = task % blocks * kChannelBlock;
      for (int64_t r = 0; r < job.rois.size(); ++r) {
        if (image_of[r] != n) continue;
        const Roi roi =
            roi_of(job.rois.box(r), job.rois.options, job.rois.scales.data(), int(job.grads.size()));
        if (roi.empty()) continue;
        grid.fill(roi, job.rois.options.output_size, view_of(job.grads[roi.level], !kPlanar));
        scatter<T, kPlanar>(job, roi, grid, r, n, first, std::min(first + kChannelBlock, channels));
      }
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
  dispatch_layout(job.out.scalar_type(), job.channels_last, "roi_align",
                  [&]<typename T, bool kPlanar>() { roi_align<T, kPlanar>(job); });
  return job.out;
}

TensorList roi_align_backward_cpu(const Tensor& grad, const Tensor& boxes, const Tensor& image_index,
                                  int64_t images, std::vector<int64_t> sizes, bool channels_last,
                                  std::vector<int64_t> strides, int64_t output_size, int64_t sampling_ratio,
                                  bool aligned, double canonical_scale, int64_t canonical_level,
                                  int64_t min_level, double extent) {
  using torch::headeronly::ScalarType;
  const RoiAlignOptions options{int(output_size),       int(sampling_ratio),  aligned,
                                float(canonical_scale), int(canonical_level), int(min_level),
                                float(extent)};
  const ScalarType dtype = grad.scalar_type(), sums = dtype == ScalarType::Double ? dtype : ScalarType::Float;
  RoiPoolingGrad job = prepare_roi_align_backward(grad, boxes, image_index, images, sizes, channels_last,
                                                  strides, options, sums);
  dispatch_layout(dtype, channels_last, "roi_align_backward",
                  [&]<typename T, bool kPlanar>() { roi_align_backward<T, kPlanar>(job, images); });
  if (dtype != sums)
    for (Tensor& g : job.grads) g = torch::stable::to(g, dtype);
  return job.grads;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align_cpu));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward_cpu));
}
}  // namespace detectron_libra
