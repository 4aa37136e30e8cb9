// SPDX-License-Identifier: Apache-2.0
#pragma once
// CUDA: the boxes in the order of their visits, and where each group begins and ends, all on the device. The
// list of groups has no order: groups do not touch each other, so the results have one.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/launch.cuh"
#include "ops/nms/nms.h"
#include "ops/nms/nms_host.h"

namespace detectron_libra {

constexpr int kGroupThreads = 512;
constexpr int64_t kGroupBlocks = 2048;  // each takes the groups from its own number on, this many apart

// Device pointers; n boxes.
template <typename T>
struct Grouped {
  int64_t n;
  const T* corners;
  const int64_t *groups, *order;
  T* sorted;                 // (n, 4) corners in order
  int64_t* start;            // (n,) where the group of each position begins
  int64_t *first, *last;     // (n,) of each listed group: [first, last)
  int64_t *count, *largest;  // (1,) each: groups listed, boxes of the largest
};

// The memory behind it: 40 bytes a float32 box, whatever the groups.
struct GroupMemory {
  torch::stable::Tensor sorted, index, count;

  explicit GroupMemory(const torch::stable::Tensor& boxes)
      : sorted(torch::stable::empty_like(boxes)),
        index(torch::stable::empty({3 * boxes.size(0)}, torch::headeronly::ScalarType::Long, std::nullopt,
                                   boxes.device())),
        count(torch::stable::empty({2}, torch::headeronly::ScalarType::Long, std::nullopt, boxes.device())) {
    torch::stable::zero_(count);
  }

  template <typename T>
  Grouped<T> view(const torch::stable::Tensor& boxes, const torch::stable::Tensor& groups,
                  const torch::stable::Tensor& order) {
    const int64_t n = boxes.size(0);
    int64_t* rows = index.mutable_data_ptr<int64_t>();
    return {n,
            boxes.const_data_ptr<T>(),
            groups.const_data_ptr<int64_t>(),
            order.const_data_ptr<int64_t>(),
            sorted.mutable_data_ptr<T>(),
            rows,
            rows + n,
            rows + 2 * n,
            count.mutable_data_ptr<int64_t>(),
            count.mutable_data_ptr<int64_t>() + 1};
  }
};

template <typename T>
struct SortAndList {
  Grouped<T> g;

  __device__ void operator()(int64_t i) const {
    const int64_t from = g.order[i];
    for (int k = 0; k < 4; ++k) g.sorted[4 * i + k] = g.corners[4 * from + k];
    if (i > 0 && g.groups[g.order[i - 1]] == g.groups[from]) return;
    const auto slot = atomicAdd(reinterpret_cast<unsigned long long*>(g.count), 1ull);  // whole numbers
    g.first[slot] = i;
  }
};

// A block walks its group to its end: positions of one group follow each other.
template <typename T>
__global__ void mark_groups(Grouped<T> g) {
  for (int64_t at = blockIdx.x; at < *g.count; at += gridDim.x) {
    const int64_t first = g.first[at], group = g.groups[g.order[first]];
    for (int64_t i = first + threadIdx.x; i < g.n && g.groups[g.order[i]] == group; i += blockDim.x) {
      g.start[i] = first;
      if (i + 1 < g.n && g.groups[g.order[i + 1]] == group) continue;
      g.last[at] = i + 1;
      atomicMax(reinterpret_cast<unsigned long long*>(g.largest),
                static_cast<unsigned long long>(i + 1 - first));
    }
  }
}

// One block per group, more groups than blocks in turns.
inline unsigned group_blocks(int64_t n) { return unsigned(n < kGroupBlocks ? n : kGroupBlocks); }

// n > 0. Runs on `stream`, the current one of the boxes' device.
template <typename T>
void find_groups(const torch::stable::Tensor& boxes, const Grouped<T>& g, cudaStream_t stream) {
  for_each(boxes, g.n, SortAndList<T>{g});
  mark_groups<<<group_blocks(g.n), kGroupThreads, 0, stream>>>(g);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace detectron_libra
