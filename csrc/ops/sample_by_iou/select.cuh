// SPDX-License-Identifier: Apache-2.0
#pragma once
// CUDA: the boxes of the smallest keys of each group of each image, without a sort and without the host. Keys
// are counted in buckets; the counts say which bucket of a group is taken in part; only the few boxes of
// those buckets are compared with each other. Integer atomics alone: the result does not depend on their
// order.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/launch.cuh"
#include "ops/sample_by_iou/sample_by_iou.h"

namespace detectron_libra {

constexpr int kBuckets = 256, kPerLane = kBuckets / 32;
constexpr int kSettleBlocks = 16;  // blocks that share the boxes of an image's part-taken buckets
constexpr unsigned kAllLanes = 0xffffffffu;

// A box as a `Boxes` functor gives it: its group, negative for none, and a key of at most 2^31.
struct Item {
  int64_t group;
  uint32_t code;

  __device__ int bucket() const { return smaller<uint32_t>(code >> 23, kBuckets - 1); }
};

// Of a group: buckets before `whole` are taken, and `left` boxes of that one.
struct Limit {
  int whole, left;
};

// Scratch of one choice; pointers into `memory`, of which the first `zeros` integers start at 0.
struct Scratch {
  int64_t rows, columns, groups, zeros;
  int *counts, *tied_count, *totals;
  Limit* limits;
  int64_t* tied;
  int* tied_group;
};

template <typename Boxes>
__global__ void count_buckets(Scratch s, Boxes boxes) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < s.rows * s.columns;
       i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t row = i / s.columns;
    const Item item = boxes.at(row, i);
    if (item.group >= 0) atomicAdd(&s.counts[(row * s.groups + item.group) * kBuckets + item.bucket()], 1);
  }
}

// A warp finds how far `quota` reaches into a group's buckets; lane k holds kPerLane of them, `before` is
// their sum in the lanes below.
__device__ inline void find_limit(const int* counts, int before, int total, int64_t quota, Limit* limit) {
  const int lane = threadIdx.x % 32;
  if (quota <= 0 || quota >= total) {
    if (lane == 0) *limit = {quota <= 0 ? 0 : kBuckets, 0};
    return;
  }
  for (int k = 0; k < kPerLane; ++k) {
    const int count = counts[lane * kPerLane + k];
    if (before < quota && quota <= int64_t(before) + count)
      *limit = {lane * kPerLane + k, int(quota - before)};
    before += count;
  }
}

__device__ inline int sum_of_lane(const int* counts) {
  int sum = 0;
  for (int k = 0; k < kPerLane; ++k) sum += counts[threadIdx.x % 32 * kPerLane + k];
  return sum;
}

// Sum of the lanes up to and with this one.
__device__ inline int sum_so_far(int mine) {
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, mine, step);
    if (int(threadIdx.x % 32) >= step) mine += other;
  }
  return mine;
}

// Block = image, a warp per group: the groups' sizes, then from them the quotas, then the limits.
template <typename Quotas>
__global__ void find_limits(Scratch s, Quotas quotas) {
  const int64_t row = blockIdx.x;
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  int* totals = s.totals + row * s.groups;
  for (int64_t g = warp; g < s.groups; g += warps) {
    const int so_far = sum_so_far(sum_of_lane(s.counts + (row * s.groups + g) * kBuckets));
    if (threadIdx.x % 32 == 31) totals[g] = so_far;
  }
  __syncthreads();
  const auto quota = quotas.of(row, totals);
  for (int64_t g = warp; g < s.groups; g += warps) {
    const int* counts = s.counts + (row * s.groups + g) * kBuckets;
    const int mine = sum_of_lane(counts);
    find_limit(counts, sum_so_far(mine) - mine, totals[g], quota(g), &s.limits[row * s.groups + g]);
  }
}

template <typename Boxes>
__global__ void choose(Scratch s, Boxes boxes, bool* chosen) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < s.rows * s.columns;
       i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t row = i / s.columns;
    const Item item = boxes.at(row, i);
    bool is = boxes.keeps(row, i);
    if (item.group >= 0) {
      const Limit limit = s.limits[row * s.groups + item.group];
      is |= item.bucket() < limit.whole;
      if (item.bucket() == limit.whole && limit.left > 0) {
        const int64_t slot = row * s.columns + atomicAdd(&s.tied_count[row], 1);
        s.tied[slot] = int64_t(uint64_t(item.code) << 32 | uint64_t(i - row * s.columns));
        s.tied_group[slot] = int(item.group);
      }
    }
    chosen[i] = is;
  }
}

// Key in the high half, column in the low one: no two are equal, and of equal keys the lower column is first.
template <typename Unused = void>
__global__ void settle(Scratch s, bool* chosen) {
  const int64_t row = blockIdx.x, first = row * s.columns;
  const int count = s.tied_count[row];
  for (int e = blockIdx.y * blockDim.x + threadIdx.x; e < count; e += gridDim.y * blockDim.x) {
    const uint64_t mine = uint64_t(s.tied[first + e]);
    const int group = s.tied_group[first + e];
    int rank = 0;
    for (int j = 0; j < count; ++j)
      rank += s.tied_group[first + j] == group && uint64_t(s.tied[first + j]) < mine;
    if (rank < s.limits[row * s.groups + group].left) chosen[first + int64_t(mine & 0xffffffffu)] = true;
  }
}

// chosen[i] = boxes.keeps(row, i), or box i is among the quotas.of(row, totals)(group) smallest of its group.
// Returns memory whose first rows * groups integers are the groups' sizes. Needs a box at least.
template <typename Boxes, typename Quotas>
torch::stable::Tensor choose_smallest(const torch::stable::Tensor& like, int64_t rows, int64_t columns,
                                      int64_t groups, const Boxes& boxes, const Quotas& quotas,
                                      bool* chosen) {
  using torch::headeronly::IntHeaderOnlyArrayRef;
  using torch::headeronly::ScalarType;
  const auto room = [&](int64_t count, ScalarType dtype) {
    return torch::stable::new_empty(like, IntHeaderOnlyArrayRef(&count, 1), dtype);
  };
  STD_TORCH_CHECK(columns < (int64_t(1) << 31), "candidates has ", columns, " boxes an image, 2^31 or more");
  torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  const cudaStream_t stream = current_stream(like.get_device_index());
  const int64_t buckets = rows * groups * kBuckets;
  torch::stable::Tensor zeros = room(buckets + rows, ScalarType::Int);
  torch::stable::Tensor totals = room(rows * groups, ScalarType::Int);
  torch::stable::Tensor limits = room(rows * groups, ScalarType::Long);
  torch::stable::Tensor tied = room(rows * columns, ScalarType::Long);
  torch::stable::Tensor tied_group = room(rows * columns, ScalarType::Int);
  int* counts = zeros.mutable_data_ptr<int>();
  static_assert(sizeof(Limit) == sizeof(int64_t));
  const Scratch s{rows,
                  columns,
                  groups,
                  buckets + rows,
                  counts,
                  counts + buckets,
                  totals.mutable_data_ptr<int>(),
                  reinterpret_cast<Limit*>(limits.mutable_data_ptr<int64_t>()),
                  tied.mutable_data_ptr<int64_t>(),
                  tied_group.mutable_data_ptr<int>()};
  STD_CUDA_CHECK(cudaMemsetAsync(counts, 0, size_t(s.zeros) * sizeof(int), stream));
  const int64_t want = (rows * columns + kThreads - 1) / kThreads;
  const unsigned blocks = unsigned(smaller(want, kMaxBlocks));
  count_buckets<<<blocks, kThreads, 0, stream>>>(s, boxes);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  find_limits<<<unsigned(rows), kThreads, 0, stream>>>(s, quotas);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  choose<<<blocks, kThreads, 0, stream>>>(s, boxes, chosen);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  settle<><<<dim3(unsigned(rows), kSettleBlocks), kThreads, 0, stream>>>(s, chosen);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return totals;
}

}  // namespace detectron_libra
