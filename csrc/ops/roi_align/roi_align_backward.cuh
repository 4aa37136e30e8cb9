// SPDX-License-Identifier: Apache-2.0
#pragma once
// CUDA backward of roi_align without atomics on numbers. First the boxes are sorted, in their order, into one
// list per (image, level). Then a block owns a tile of cells, walks the list of its level and adds the boxes
// that reach it; a thread owns one channel of the tile, in registers, and every cell is written once.
#include "ops/roi_align/roi_align_boxes.cuh"

namespace detectron_libra {

constexpr int kListThreads = 256;
constexpr int kTileHeight = 4, kTileWidth = 8, kTileThreads = 128;
constexpr int kTile = kTileHeight * kTileWidth;

struct ListedBox {
  Roi roi;
  int box;
};

// Boxes of (image, level) are listed[first[key]] to listed[first[key + 1]], key = image * levels + level.
struct BoxLists {
  ListedBox* listed;
  int* first;
};

// A block per (image, level). Every block looks at all boxes, once to count those of the lists before its
// own, once to write its own in order.
static __global__ void __launch_bounds__(kListThreads) list_kernel(Boxes boxes, BoxLists lists) {
  __shared__ int before;
  __shared__ unsigned votes[kListThreads / 32];
  const int64_t key = blockIdx.x, none = boxes.images * boxes.levels;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const auto key_of = [&](int64_t r, Roi& roi) {
    if (r >= boxes.size || !boxes.has_image(r)) return none;
    roi = boxes.roi(r);
    return roi.empty() ? none : boxes.image[r] * boxes.levels + roi.level;
  };
  Roi roi;
  int mine = 0;
  for (int64_t r = threadIdx.x; r < boxes.size; r += kListThreads) mine += key_of(r, roi) < key;
  if (threadIdx.x == 0) before = 0;
  __syncthreads();
  if (mine > 0) atomicAdd(&before, mine);  // integers: any order gives the same sum
  __syncthreads();
  int next = before;
  if (threadIdx.x == 0) lists.first[key] = next;
  for (int64_t start = 0; start < boxes.size; start += kListThreads) {
    const int64_t r = start + threadIdx.x;
    const bool found = key_of(r, roi) == key;
    const unsigned vote = __ballot_sync(0xffffffffu, found);
    if (lane == 0) votes[warp] = vote;
    __syncthreads();
    int at = next + __popc(vote & ((1u << lane) - 1));
    for (int w = 0; w < kListThreads / 32; ++w) {
      if (w < warp) at += __popc(votes[w]);
      next += __popc(votes[w]);
    }
    if (found) lists.listed[at] = {roi, int(r)};
    __syncthreads();
  }
  if (threadIdx.x == 0 && key + 1 == none) lists.first[none] = next;
}

template <typename T>
struct TiledLevel {
  T* grad;
  View view;
  int64_t tiles_y, tiles_x, first_block;
};

template <typename T>
struct Backward {
  Boxes boxes;
  BoxLists lists;
  TiledLevel<T> level[kMaxLevels];
  const T* grad;
};

// The bins of a box that reach the tile: none where first > last.
struct BinRange {
  int first, last;
};

// Adds one box to the tile. weights: (kTileHeight + kTileWidth, side), first those of rows.
template <typename T, bool kPlanar>
__device__ __forceinline__ void add_box(accumulate_t<T> (&sum)[kTile], const T* grad, const float* weights,
                                        const BinRange (&bins)[2], int side, int64_t channels, int64_t r,
                                        int64_t c, int count) {
  using A = accumulate_t<T>;
  const float* across = weights + kTileHeight * side;
  const A scale = A(1) / A(count);
  for (int by = bins[0].first; by <= bins[0].last; ++by) {
    A row[kTileWidth] = {};
    for (int bx = bins[1].first; bx <= bins[1].last; ++bx) {
      const int64_t at = kPlanar ? ((r * channels + c) * side + by) * side + bx
                                 : ((r * side + by) * side + bx) * channels + c;
      const A g = A(grad[at]) * scale;
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
      for (int x = 0; x < kTileWidth; ++x) sum[y * kTileWidth + x] += A(w) * row[x];
    }
  }
}

// Writes the tile. In planes a warp writes the rows of one channel: whole sectors, through shared memory.
template <typename T, bool kPlanar>
__device__ __forceinline__ void write_tile(const accumulate_t<T> (&sum)[kTile], const TiledLevel<T>& level,
                                           int64_t n, int64_t channels, int64_t y0, int64_t x0) {
  const View& v = level.view;
  const int64_t first = int64_t(blockIdx.y) * kTileThreads;
  if constexpr (kPlanar) {
    __shared__ accumulate_t<T> staged[kTileThreads * (kTile + 1)];
#pragma unroll
    for (int i = 0; i < kTile; ++i) staged[threadIdx.x * (kTile + 1) + i] = sum[i];
    __syncthreads();
    for (int e = threadIdx.x; e < kTileThreads * kTile; e += kTileThreads) {
      const int64_t c = first + e / kTile, y = y0 + e % kTile / kTileWidth, x = x0 + e % kTileWidth;
      if (c < channels && y < v.height && x < v.width)
        level.grad[v.at(n * channels + c, y, x)] = T(staged[e / kTile * (kTile + 1) + e % kTile]);
    }
  } else {
    const int64_t c = first + threadIdx.x;
    if (c >= channels) return;
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const int64_t y = y0 + i / kTileWidth, x = x0 + i % kTileWidth;
      if (y < v.height && x < v.width) level.grad[v.at(n, y, x) + c] = T(sum[i]);
    }
  }
}

template <typename T, bool kPlanar>
__global__ void __launch_bounds__(kTileThreads, 3) backward_kernel(Backward<T> job) {
  __shared__ ListedBox found[kTileThreads];
  __shared__ unsigned votes[kTileThreads / 32];
  __shared__ BinRange bins[2][2];  // [turn][axis]
  extern __shared__ float weights[];
  const Boxes& boxes = job.boxes;
  const int side = boxes.options.output_size;
  int l = 0, turn = 0;
  while (l + 1 < boxes.levels && int64_t(blockIdx.x) >= job.level[l + 1].first_block) ++l;
  const TiledLevel<T>& level = job.level[l];
  const int64_t tile = blockIdx.x - level.first_block, n = tile / (level.tiles_y * level.tiles_x);
  const int64_t y0 = tile / level.tiles_x % level.tiles_y * kTileHeight;
  const int64_t x0 = tile % level.tiles_x * kTileWidth;
  const int64_t c = int64_t(blockIdx.y) * kTileThreads + threadIdx.x;
  const int64_t height = level.view.height, width = level.view.width;
  const int begin = job.lists.first[n * boxes.levels + l], end = job.lists.first[n * boxes.levels + l + 1];
  accumulate_t<T> sum[kTile] = {};
  if (threadIdx.x < 4) bins[threadIdx.x / 2][threadIdx.x % 2] = {side, -1};

  for (int64_t start = begin; start < end; start += kTileThreads) {
    bool reaches = false;
    if (start + threadIdx.x < end) {
      const ListedBox box = job.lists.listed[start + threadIdx.x];
      found[threadIdx.x] = box;
      reaches = roi_touches(box.roi.y, boxes.options, y0, y0 + kTileHeight, height) &&
                roi_touches(box.roi.x, boxes.options, x0, x0 + kTileWidth, width);
    }
    const unsigned vote = __ballot_sync(0xffffffffu, reaches);
    if (threadIdx.x % 32 == 0) votes[threadIdx.x / 32] = vote;
    __syncthreads();
    for (int w = 0; w < kTileThreads / 32; ++w) {
      for (unsigned bits = votes[w]; bits != 0; bits &= bits - 1, turn ^= 1) {
        const ListedBox& box = found[w * 32 + __ffs(int(bits)) - 1];
        for (int e = threadIdx.x; e < (kTileHeight + kTileWidth) * side; e += kTileThreads) {
          const int cell = e / side, bin = e % side, axis = cell < kTileHeight ? 0 : 1;
          weights[e] = axis == 0 ? roi_weight(box.roi.y, bin, y0 + cell, height)
                                 : roi_weight(box.roi.x, bin, x0 + cell - kTileHeight, width);
          if (weights[e] == 0) continue;
          atomicMin(&bins[turn][axis].first, bin);  // integers: any order gives the same range
          atomicMax(&bins[turn][axis].last, bin);
        }
        __syncthreads();
        if (threadIdx.x < 2) bins[turn ^ 1][threadIdx.x] = {side, -1};  // for the next box
        if (c < boxes.channels)
          add_box<T, kPlanar>(sum, job.grad, weights, bins[turn], side, boxes.channels, box.box, c,
                              box.roi.count());
        __syncthreads();
      }
    }
    __syncthreads();
  }
  write_tile<T, kPlanar>(sum, level, n, boxes.channels, y0, x0);
}

}  // namespace detectron_libra
