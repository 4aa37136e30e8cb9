// SPDX-License-Identifier: Apache-2.0
// CUDA kernels of roi_align. Forward: one launch for all boxes and levels; a block owns a part of a box, a
// thread a bin of one channel, or of 16 bytes of channels where they are innermost.
#include <torch/csrc/stable/library.h>

#include "ops/roi_align/roi_align_backward.cuh"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

constexpr int kGroupsPerThread = 4;

template <typename T>
struct Forward {
  Boxes boxes;
  const T* data[kMaxLevels];
  View view[kMaxLevels];
  T* out;
};

template <typename T, int kVector>
struct alignas(sizeof(T) * kVector) Pack {
  T of[kVector];
};

// sum += weight * the channels at `from`; a weight of 0 reads nothing.
template <typename T, int kVector>
__device__ __forceinline__ void add_cell(accumulate_t<T> (&sum)[kVector], const T* from, float weight) {
  using A = accumulate_t<T>;
  if (weight == 0) return;
  const auto pack = *reinterpret_cast<const Pack<T, kVector>*>(from);
#pragma unroll
  for (int k = 0; k < kVector; ++k) sum[k] += A(weight) * A(pack.of[k]);
}

// sum += all samples of bin (by, bx). plane: channel(s) of an image.
template <typename T, int kVector>
__device__ __forceinline__ void add_bin(accumulate_t<T> (&sum)[kVector], const T* plane, const Roi& roi,
                                        const View& v, int by, int bx) {
  for (int iy = 0; iy < roi.y.grid; ++iy) {
    const Sample y = roi_sample(roi.y, by, iy, v.height);
    if (y.low < 0) continue;
    for (int ix = 0; ix < roi.x.grid; ++ix) {
      const Sample x = roi_sample(roi.x, bx, ix, v.width);
      if (x.low < 0) continue;
      add_cell<T, kVector>(sum, plane + v.at(0, y.low, x.low), y.low_weight * x.low_weight);
      add_cell<T, kVector>(sum, plane + v.at(0, y.low, x.high), y.low_weight * x.high_weight);
      add_cell<T, kVector>(sum, plane + v.at(0, y.high, x.low), y.high_weight * x.low_weight);
      add_cell<T, kVector>(sum, plane + v.at(0, y.high, x.high), y.high_weight * x.high_weight);
    }
  }
}

template <typename T, bool kPlanar, int kVector>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward<T> job) {
  using A = accumulate_t<T>;
  __shared__ Roi roi;
  const Boxes& boxes = job.boxes;
  const int64_t r = blockIdx.x;
  const int side = boxes.options.output_size, channels = int(boxes.channels);
  const int groups = channels * side * side / kVector, per_bin = channels / kVector;
  const bool has_image = boxes.has_image(r);
  if (threadIdx.x == 0) roi = has_image ? boxes.roi(r) : Roi{};
  __syncthreads();
  const View v = job.view[roi.level];
  const T* image = job.data[roi.level];
  if (!roi.empty()) image += v.at(boxes.image[r] * (kPlanar ? channels : 1), 0, 0);
  const A scale = A(1) / A(roi.count());
  T* out = job.out + r * (int64_t(channels) * side * side);
  for (int64_t i = int64_t(blockIdx.y) * kThreads + threadIdx.x; i < groups;
       i += int64_t(gridDim.y) * kThreads) {
    const int g = int(i), bin = kPlanar ? g % (side * side) : g / per_bin;
    const int c = kPlanar ? g / (side * side) : g % per_bin * kVector;
    const T* plane = image + (kPlanar ? v.at(c, 0, 0) : int64_t(c));
    A sum[kVector] = {};
    if (!roi.empty()) add_bin<T, kVector>(sum, plane, roi, v, bin / side, bin % side);
    Pack<T, kVector> pack;
#pragma unroll
    for (int k = 0; k < kVector; ++k) pack.of[k] = T(sum[k] * scale);
    *reinterpret_cast<Pack<T, kVector>*>(out + int64_t(g) * kVector) = pack;
  }
}

template <typename T, bool kPlanar, int kVector>
void launch_forward(const Forward<T>& args, const Tensor& out) {
  const int64_t per_block = int64_t(kThreads) * kGroupsPerThread;
  const int64_t groups = args.boxes.channels * out.size(2) * out.size(3) / kVector;
  const int64_t parts = (groups + per_block - 1) / per_block;
  const dim3 grid(unsigned(args.boxes.size), unsigned(parts < kMaxBlocks ? parts : kMaxBlocks));
  forward_kernel<T, kPlanar, kVector><<<grid, kThreads, 0, current_stream(out.get_device_index())>>>(args);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T, bool kPlanar>
void forward(const RoiPooling& job) {
  const Tensor& first = job.levels[0];
  if (job.out.numel() == 0) return;
  Forward<T> args{boxes_of(job.rois, first.size(0), first.size(1)), {}, {}, job.out.mutable_data_ptr<T>()};
  constexpr int kWide = 16 / sizeof(T);
  bool wide = !kPlanar && first.size(1) % kWide == 0 && reinterpret_cast<uintptr_t>(args.out) % 16 == 0;
  for (size_t i = 0; i < job.levels.size(); ++i) {
    args.data[i] = job.levels[i].template const_data_ptr<T>();
    args.view[i] = view_of(job.levels[i], !kPlanar);
    wide = wide && reinterpret_cast<uintptr_t>(args.data[i]) % 16 == 0;
  }
  torch::stable::accelerator::DeviceGuard guard(job.out.get_device_index());
  if constexpr (!kPlanar)
    if (wide) return launch_forward<T, false, kWide>(args, job.out);
  launch_forward<T, kPlanar, 1>(args, job.out);
}

template <typename T, bool kPlanar>
void backward(const RoiPoolingGrad& job, int64_t images) {
  using torch::headeronly::ScalarType;
  const int64_t channels = job.grad.size(1);
  Backward<T> args{boxes_of(job.rois, images, channels), {}, {}, job.grad.template const_data_ptr<T>()};
  int64_t blocks = 0;
  for (size_t i = 0; i < job.grads.size(); ++i) {
    const View view = view_of(job.grads[i], !kPlanar);
    const int64_t tiles_y = (view.height + kTileHeight - 1) / kTileHeight;
    const int64_t tiles_x = (view.width + kTileWidth - 1) / kTileWidth;
    args.level[i] = {job.grads[i].template mutable_data_ptr<T>(), view, tiles_y, tiles_x, blocks};
    blocks += images * tiles_y * tiles_x;
  }
  if (blocks == 0 || channels == 0) return;
  STD_TORCH_CHECK(blocks <= 0x7fffffff, "roi_align_backward: ", blocks, " tiles; split the call");
  torch::stable::accelerator::DeviceGuard guard(job.grad.get_device_index());
  const int32_t device = job.grad.get_device_index();
  const int64_t lists = images * args.boxes.levels;
  const auto scratch = [&](int64_t bytes) {
    return torch::stable::empty({bytes}, ScalarType::Byte, std::nullopt, job.grad.device());
  };
  const Tensor listed = scratch((job.rois.size() + 1) * int64_t(sizeof(ListedBox)));
  const Tensor first = scratch((lists + 1) * int64_t(sizeof(int)));
  args.lists = {reinterpret_cast<ListedBox*>(listed.mutable_data_ptr()),
                reinterpret_cast<int*>(first.mutable_data_ptr())};
  list_kernel<<<unsigned(lists), kListThreads, 0, current_stream(device)>>>(args.boxes, args.lists);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const dim3 grid(unsigned(blocks), unsigned((channels + kTileThreads - 1) / kTileThreads));
  const size_t shared = sizeof(float) * (kTileHeight + kTileWidth) * job.rois.options.output_size;
  backward_kernel<T, kPlanar><<<grid, kTileThreads, shared, current_stream(device)>>>(args);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor roi_align_cuda(TensorList levels, const Tensor& boxes, const Tensor& image_index,
                      std::vector<int64_t> strides, int64_t output_size, int64_t sampling_ratio, bool aligned,
                      double canonical_scale, int64_t canonical_level, int64_t min_level, double extent) {
  const RoiAlignOptions options{int(output_size),       int(sampling_ratio),  aligned,
                                float(canonical_scale), int(canonical_level), int(min_level),
                                float(extent)};
  const RoiPooling job = prepare_roi_align(levels, boxes, image_index, strides, options);
  dispatch_layout(job.out.scalar_type(), job.channels_last, "roi_align",
                  [&]<typename T, bool kPlanar>() { forward<T, kPlanar>(job); });
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
                  [&]<typename T, bool kPlanar>() { backward<T, kPlanar>(job, images); });
  return job.grads;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align_cuda));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward_cuda));
}
}  // namespace detectron_libra
