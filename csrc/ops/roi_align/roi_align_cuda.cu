// SPDX-License-Identifier: Apache-2.0
// CUDA kernels of roi_align. Forward: a thread per output number. Backward: a block owns a tile of cells,
// finds the boxes that reach it and adds them in order; a thread owns one channel of the tile. No atomics.
#include <torch/csrc/stable/library.h>

#include "common/launch.cuh"
#include "ops/roi_align/roi_align_host.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

constexpr int kMaxLevels = 16;  // levels travel to the kernel by value
constexpr int kTileHeight = 4, kTileWidth = 8, kTileThreads = 128;

struct Boxes {
  const float* box;
  const int64_t* image;
  int64_t size, images, channels;
  RoiAlignOptions options;
  float scales[kMaxLevels];
  int levels;

  __device__ Roi roi(int64_t r) const { return roi_of(box + 4 * r, options, scales, levels); }
};

Boxes boxes_of(const RoiBoxes& rois, int64_t images, int64_t channels) {
  const size_t levels = rois.scales.size();
  STD_TORCH_CHECK(levels <= size_t(kMaxLevels), "at most ", kMaxLevels, " levels on CUDA, got ", levels);
  Boxes out{rois.boxes.const_data_ptr<float>(),
            rois.image_index.const_data_ptr<int64_t>(),
            rois.size(),
            images,
            channels,
            rois.options,
            {},
            int(levels)};
  for (size_t i = 0; i < levels; ++i) out.scales[i] = rois.scales[i];
  return out;
}

template <typename T, bool kPlanar>
struct Forward {
  Boxes boxes;
  const T* data[kMaxLevels];
  View view[kMaxLevels];
  T* out;

  __device__ void operator()(int64_t i) const {
    using A = accumulate_t<T>;
    const int side = boxes.options.output_size;
    const int64_t c = kPlanar ? i / (side * side) % boxes.channels : i % boxes.channels;
    const int64_t bin = kPlanar ? i % (side * side) : i / boxes.channels % (side * side);
    const int64_t r = i / (boxes.channels * side * side), n = boxes.image[r];
    out[i] = T(0);
    if (n < 0 || n >= boxes.images) return;
    const Roi roi = boxes.roi(r);
    if (roi.empty()) return;
    const View& v = view[roi.level];
    const T* plane = data[roi.level] + (kPlanar ? v.at(n * boxes.channels + c, 0, 0) : v.at(n, 0, 0) + c);
    A sum(0);
    for (int iy = 0; iy < roi.y.grid; ++iy) {
      const Sample y = roi_sample(roi.y, int(bin / side), iy, v.height);
      if (y.low < 0) continue;
      for (int ix = 0; ix < roi.x.grid; ++ix) {
        const Sample x = roi_sample(roi.x, int(bin % side), ix, v.width);
        if (x.low < 0) continue;
        sum += A(y.low_weight * x.low_weight) * A(plane[v.at(0, y.low, x.low)]);
        sum += A(y.low_weight * x.high_weight) * A(plane[v.at(0, y.low, x.high)]);
        sum += A(y.high_weight * x.low_weight) * A(plane[v.at(0, y.high, x.low)]);
        sum += A(y.high_weight * x.high_weight) * A(plane[v.at(0, y.high, x.high)]);
      }
    }
    out[i] = T(sum / A(roi.count()));
  }
};

template <typename T>
struct TiledLevel {
  T* grad;
  View view;
  int64_t tiles_y, tiles_x, first_block;
};

template <typename T>
struct Backward {
  Boxes boxes;
  TiledLevel<T> level[kMaxLevels];
  const T* grad;
};

// Adds one box to the tile. weights: (kTileHeight + kTileWidth, side), first those of rows.
template <typename T, bool kPlanar>
__device__ __forceinline__ void add_box(accumulate_t<T> (&sum)[kTileHeight][kTileWidth], const T* grad,
                                        const float* weights, int side, int64_t channels, int64_t r,
                                        int64_t c, int count) {
  using A = accumulate_t<T>;
  const float* across = weights + kTileHeight * side;
  for (int by = 0; by < side; ++by) {
    A row[kTileWidth] = {};
    for (int bx = 0; bx < side; ++bx) {
      const int64_t at = kPlanar ? ((r * channels + c) * side + by) * side + bx
                                 : ((r * side + by) * side + bx) * channels + c;
      const A g = A(grad[at]) / A(count);
#pragma unroll
      for (int x = 0; x < kTileWidth; ++x) {
        const float w = across[x * side + bx];
        if (w != 0) row[x] += A(w) * g;  // not 0 * g: an infinite gradient stays where it belongs
      }
    }
#pragma unroll
    for (int y = 0; y < kTileHeight; ++y) {
      const float w = weights[y * side + by];
      if (w == 0) continue;
#pragma unroll
      for (int x = 0; x < kTileWidth; ++x) sum[y][x] += A(w) * row[x];
    }
  }
}

template <typename T, bool kPlanar>
__global__ void __launch_bounds__(kTileThreads, 3) backward_kernel(Backward<T> job) {
  __shared__ Roi found[kTileThreads];
  __shared__ unsigned votes[kTileThreads / 32];
  extern __shared__ float weights[];
  const Boxes& boxes = job.boxes;
  const int side = boxes.options.output_size;
  int l = 0;
  while (l + 1 < boxes.levels && int64_t(blockIdx.x) >= job.level[l + 1].first_block) ++l;
  const TiledLevel<T>& level = job.level[l];
  const int64_t tile = blockIdx.x - level.first_block, n = tile / (level.tiles_y * level.tiles_x);
  const int64_t y0 = tile / level.tiles_x % level.tiles_y * kTileHeight,
                x0 = tile % level.tiles_x * kTileWidth;
  const int64_t c = int64_t(blockIdx.y) * kTileThreads + threadIdx.x, height = level.view.height,
                width = level.view.width;
  accumulate_t<T> sum[kTileHeight][kTileWidth] = {};

  for (int64_t first = 0; first < boxes.size; first += kTileThreads) {
    const int64_t mine = first + threadIdx.x;
    bool reaches = false;
    if (mine < boxes.size && boxes.image[mine] == n) {
      const Roi roi = boxes.roi(mine);
      found[threadIdx.x] = roi;
      reaches = roi.level == l && !roi.empty() &&
                roi_touches(roi.y, boxes.options, y0, y0 + kTileHeight, height) &&
                roi_touches(roi.x, boxes.options, x0, x0 + kTileWidth, width);
    }
    const unsigned vote = __ballot_sync(0xffffffffu, reaches);
    if (threadIdx.x % 32 == 0) votes[threadIdx.x / 32] = vote;
    __syncthreads();
    for (int w = 0; w < kTileThreads / 32; ++w) {
      for (unsigned bits = votes[w]; bits != 0; bits &= bits - 1) {
        const int k = w * 32 + __ffs(int(bits)) - 1;
        const Roi& roi = found[k];
        for (int e = threadIdx.x; e < (kTileHeight + kTileWidth) * side; e += kTileThreads) {
          const int cell = e / side;
          weights[e] = cell < kTileHeight ? roi_weight(roi.y, e % side, y0 + cell, height)
                                          : roi_weight(roi.x, e % side, x0 + cell - kTileHeight, width);
        }
        __syncthreads();
        if (c < boxes.channels)
          add_box<T, kPlanar>(sum, job.grad, weights, side, boxes.channels, first + k, c, roi.count());
        __syncthreads();
      }
    }
    __syncthreads();
  }

  if (c >= boxes.channels) return;
#pragma unroll
  for (int y = 0; y < kTileHeight; ++y) {
#pragma unroll
    for (int x = 0; x < kTileWidth; ++x) {
      if (y0 + y >= height || x0 + x >= width) continue;
      const int64_t at = kPlanar ? level.view.at(n * boxes.channels + c, y0 + y, x0 + x)
                                 : level.view.at(n, y0 + y, x0 + x) + c;
      level.grad[at] = T(sum[y][x]);
    }
  }
}

template <typename T, bool kPlanar>
void launch_backward(const RoiPoolingGrad& job, int64_t images) {
  const int64_t channels = job.grad.size(1);
  Backward<T> args{boxes_of(job.rois, images, channels), {}, job.grad.template const_data_ptr<T>()};
  int64_t blocks = 0;
  for (size_t i = 0; i < job.grads.size(); ++i) {
    const View view = view_of(job.grads[i], !kPlanar);
    const int64_t tiles_y = (view.height + kTileHeight - 1) / kTileHeight;
    const int64_t tiles_x = (view.width + kTileWidth - 1) / kTileWidth;
    args.level[i] = {job.grads[i].template mutable_data_ptr<T>(), view, tiles_y, tiles_x, blocks};
    blocks += images * tiles_y * tiles_x;
  }
  if (blocks == 0 || channels == 0) return;
  torch::stable::accelerator::DeviceGuard guard(job.grad.get_device_index());
  const dim3 grid(unsigned(blocks), unsigned((channels + kTileThreads - 1) / kTileThreads));
  const size_t shared = sizeof(float) * (kTileHeight + kTileWidth) * job.rois.options.output_size;
  backward_kernel<T, kPlanar>
      <<<grid, kTileThreads, shared, current_stream(job.grad.get_device_index())>>>(args);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor roi_align_cuda(TensorList levels, const Tensor& boxes, const Tensor& image_index,
                      std::vector<int64_t> strides, int64_t output_size, int64_t sampling_ratio, bool aligned,
                      double canonical_scale, int64_t canonical_level, int64_t min_level, double extent) {
  const RoiAlignOptions options{int(output_size),       int(sampling_ratio),  aligned,
                                float(canonical_scale), int(canonical_level), int(min_level),
                                float(extent)};
  const RoiPooling job = prepare_roi_align(levels, boxes, image_index, strides, options);
  dispatch_layout(job.out.scalar_type(), job.channels_last, "roi_align", [&]<typename T, bool kPlanar>() {
    Forward<T, kPlanar> f{boxes_of(job.rois, levels[0].size(0), levels[0].size(1)),
                          {},
                          {},
                          job.out.template mutable_data_ptr<T>()};
    for (size_t i = 0; i < job.levels.size(); ++i) {
      f.data[i] = job.levels[i].template const_data_ptr<T>();
      f.view[i] = view_of(job.levels[i], !kPlanar);
    }
    for_each(job.out, job.out.numel(), f);
  });
  return job.out;
}

TensorList roi_align_backward_cuda(const Tensor& grad, const Tensor& boxes, const Tensor& image_index,
                                   int64_t images, std::vector<int64_t> sizes, bool channels_last,
                                   std::vector<int64_t> strides, int64_t output_size, int64_t sampling_ratio,
                                   bool aligned, double canonical_scale, int64_t canonical_level,
                                   int64_t min_level, double extent) {
  const RoiAlignOptions options{int(output_size),       int(sampling_ratio),  aligned,
                                float(canonical_scale), int(canonical_level), int(min_level),
                                float(extent)};
  const RoiPoolingGrad job = prepare_roi_align_backward(grad, boxes, image_index, images, sizes,
                                                        channels_last, strides, options, grad.scalar_type());
  dispatch_layout(grad.scalar_type(), channels_last, "roi_align_backward",
                  [&]<typename T, bool kPlanar>() { launch_backward<T, kPlanar>(job, images); });
  return job.grads;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align_cuda));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward_cuda));
}
}  // namespace detectron_libra
