// SPDX-License-Identifier: Apache-2.0
// CUDA kernels of match_boxes: a thread a box, ground truth in tiles through shared memory.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "common/launch.cuh"
#include "ops/match_boxes/match_boxes_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

constexpr int kTile = 128;  // ground truths at a time

struct Inputs {
  const float *boxes, *gt;
  const bool *valid, *candidates;  // candidates may be null
  int64_t count, num_gt;
  bool shared_boxes;
  float extent;

  explicit Inputs(const MatchJob& job)
      : boxes(job.boxes_of(0)),
        gt(job.gt_of(0)),
        valid(job.valid_of(0)),
        candidates(job.candidates_of(0)),
        count(job.count),
        num_gt(job.num_gt),
        shared_boxes(job.shared_boxes),
        extent(job.extent) {}

  __device__ MatchBox box(int64_t n, int64_t i) const {
    const float* at = boxes + 4 * ((shared_boxes ? 0 : n * count) + i);
    return {at[0], at[1], at[2], at[3]};
  }
};

struct Tile {
  MatchBox box[kTile];
  float area[kTile];
  bool valid[kTile];

  // All threads of the block; between two barriers.
  __device__ void load(const Inputs& in, int64_t n, int64_t first) {
    __syncthreads();
    for (int k = threadIdx.x; k < kTile; k += kThreads) {
      const int64_t g = first + k;
      valid[k] = g < in.num_gt && in.valid[n * in.num_gt + g];
      if (!valid[k]) continue;
      const float* at = in.gt + 4 * (n * in.num_gt + g);
      box[k] = {at[0], at[1], at[2], at[3]};
      area[k] = box[k].area(in.extent);
    }
    __syncthreads();
  }
};

// Overlaps are >= 0, where the order of the numbers is that of their bits: an integer maximum is exact and
// does not depend on the order in which blocks arrive.
__global__ void match_kernel(Inputs in, float* iou, int64_t* index, unsigned* largest) {
  __shared__ Tile tile;
  __shared__ unsigned most[kTile];
  const int64_t n = blockIdx.y, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const bool mine = i < in.count;
  const bool takes_part = mine && (in.candidates == nullptr || in.candidates[n * in.count + i]);
  const MatchBox box = mine ? in.box(n, i) : MatchBox{0, 0, 0, 0};
  const float area = box.area(in.extent);
  float best = 0;
  int64_t best_index = 0;
  for (int64_t first = 0; first < in.num_gt; first += kTile) {
    tile.load(in, n, first);
    for (int k = threadIdx.x; k < kTile; k += kThreads) most[k] = 0;
    __syncthreads();
    const int size = int(in.num_gt - first < kTile ? in.num_gt - first : kTile);
    for (int k = 0; k < size; ++k) {
      if (!tile.valid[k]) continue;  // the same for all threads of the block
      const float value = takes_part ? overlap(box, area, tile.box[k], tile.area[k], in.extent) : 0.0f;
      if (value > best) best = value, best_index = first + k;
      const unsigned warp = __reduce_max_sync(0xffffffffu, __float_as_uint(value));
      if (threadIdx.x % 32 == 0 && warp != 0) atomicMax(&most[k], warp);
    }
    __syncthreads();
    for (int k = threadIdx.x; k < size; k += kThreads)
      if (most[k] != 0) atomicMax(&largest[n * in.num_gt + first + k], most[k]);
  }
  if (mine) {
    iou[n * in.count + i] = best;
    index[n * in.count + i] = best_index;
  }
}

__global__ void best_for_kernel(Inputs in, float min_best_iou, const float* iou, const unsigned* largest,
                                int64_t* best_for) {
  __shared__ Tile tile;
  __shared__ float wanted[kTile];  // 0: no box is its best
  const int64_t n = blockIdx.y, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const bool mine = i < in.count;
  const bool takes_part = mine && (in.candidates == nullptr || in.candidates[n * in.count + i]);
  const MatchBox box = mine ? in.box(n, i) : MatchBox{0, 0, 0, 0};
  const float area = box.area(in.extent), best = mine ? iou[n * in.count + i] : 0.0f;
  int64_t found = -1;
  for (int64_t first = 0; first < in.num_gt; first += kTile) {
    tile.load(in, n, first);
    for (int k = threadIdx.x; k < kTile; k += kThreads) {
      const float most = tile.valid[k] ? __uint_as_float(largest[n * in.num_gt + first + k]) : 0.0f;
      wanted[k] = most >= min_best_iou ? most : 0.0f;
    }
    __syncthreads();
    const int size = int(in.num_gt - first < kTile ? in.num_gt - first : kTile);
    for (int k = 0; k < size && takes_part; ++k) {
      // A box whose largest overlap is smaller cannot reach it.
      if (wanted[k] <= 0.0f || best < wanted[k]) continue;
      if (overlap(box, area, tile.box[k], tile.area[k], in.extent) == wanted[k]) found = first + k;
    }
  }
  if (mine) best_for[n * in.count + i] = found;
}

__global__ void share_kernel(Inputs in, float* share) {
  __shared__ Tile tile;
  const int64_t n = blockIdx.y, i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const bool mine = i < in.count;
  const MatchBox box = mine ? in.box(n, i) : MatchBox{0, 0, 0, 0};
  float most = 0;
  for (int64_t first = 0; first < in.num_gt; first += kTile) {
    tile.load(in, n, first);
    const int size = int(in.num_gt - first < kTile ? in.num_gt - first : kTile);
    for (int k = 0; k < size; ++k)
      if (tile.valid[k]) most = larger(intersection(box, tile.box[k], in.extent), most);
  }
  if (mine) share[n * in.count + i] = share_inside(most, box.area(in.extent));
}

dim3 grid_of(const MatchJob& job) {
  STD_TORCH_CHECK(job.images <= kMaxBlocks, "gt: at most ", kMaxBlocks, " images at once");
  return dim3(unsigned((job.count + kThreads - 1) / kThreads), unsigned(job.images));
}

std::tuple<Tensor, Tensor, Tensor> match_boxes_cuda(const Tensor& boxes, const Tensor& gt,
                                                    const Tensor& valid, const optional<Tensor>& candidates,
                                                    double extent, double min_best_iou) {
  using torch::headeronly::ScalarType;
  const MatchJob job = prepare_match(boxes, gt, "gt", valid, "valid", candidates, extent);
  Tensor iou = job.empty(ScalarType::Float), index = job.empty(ScalarType::Long),
         best_for = job.empty(ScalarType::Long);
  if (job.images * job.count == 0) return {iou, index, best_for};
  const int64_t sizes[] = {job.images, job.num_gt};
  Tensor largest =
      torch::stable::new_empty(gt, torch::headeronly::IntHeaderOnlyArrayRef(sizes, 2), ScalarType::Int);
  torch::stable::zero_(largest);
  torch::stable::accelerator::DeviceGuard guard(gt.get_device_index());
  const cudaStream_t stream = current_stream(gt.get_device_index());
  unsigned* most = static_cast<unsigned*>(largest.data_ptr());
  const Inputs in(job);
  match_kernel<<<grid_of(job), kThreads, 0, stream>>>(in, iou.mutable_data_ptr<float>(),
                                                      index.mutable_data_ptr<int64_t>(), most);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  best_for_kernel<<<grid_of(job), kThreads, 0, stream>>>(in, float(min_best_iou), iou.const_data_ptr<float>(),
                                                         most, best_for.mutable_data_ptr<int64_t>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {iou, index, best_for};
}

Tensor max_overlap_with_cuda(const Tensor& boxes, const Tensor& regions, const Tensor& mask, double extent) {
  const MatchJob job = prepare_match(boxes, regions, "regions", mask, "mask", std::nullopt, extent);
  Tensor out = job.empty(torch::headeronly::ScalarType::Float);
  if (job.images * job.count == 0) return out;
  torch::stable::accelerator::DeviceGuard guard(regions.get_device_index());
  share_kernel<<<grid_of(job), kThreads, 0, current_stream(regions.get_device_index())>>>(
      Inputs(job), out.mutable_data_ptr<float>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("match_boxes", TORCH_BOX(&match_boxes_cuda));
  m.impl("max_overlap_with", TORCH_BOX(&max_overlap_with_cuda));
}
}  // namespace detectron_libra
