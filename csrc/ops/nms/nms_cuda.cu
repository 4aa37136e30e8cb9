// SPDX-License-Identifier: Apache-2.0
// Greedy suppression without the host and without a matrix of pairs. Every group is cut into pieces of
// kPiece boxes. In round r one block resolves piece r of each group, 64 boxes at a time; then all later boxes
// of the group meet the piece's kept ones. Groups of at most kPiece boxes are done after round 0.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/dispatch.h"
#include "ops/nms/groups.cuh"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;
using Word = unsigned long long;

constexpr int kTile = 64;  // boxes per word of bits
constexpr int kTileBytes = kTile / 8;
constexpr int64_t kPiece = 2048;
static_assert(kGroupThreads == kTile * kTileBytes, "a thread per byte of a tile's bits");

template <typename T>
struct Nms {
  Grouped<T> g;
  NmsRule<T> rule;
  bool* dropped;  // (n,) by position
  bool* keep;     // (n,) by index of the box
  int* kept;      // (n,) at the first position of a group: boxes that its latest piece kept

  __device__ NmsBox<T> at(int64_t i) const { return nms_box(g.sorted + 4 * i, rule.extent); }
};

// What a block knows of the tile it resolves.
template <typename T>
struct Tile {
  NmsBox<T> box[kTile];
  unsigned char bytes[kTile][kTileBytes];  // bit j of row i: box i suppresses box j > i, if kept
  bool dropped[kTile];
  Word kept;
  NmsBox<T> survivors[kTile];
};

// All threads. Bits of the pairs of a tile that begins at `begin` and has `count` boxes.
template <typename T>
__device__ void pair_bits(const Nms<T>& nms, Tile<T>& tile, int64_t begin, int count) {
  const int t = int(threadIdx.x);
  if (t < count) {
    tile.box[t] = nms.at(begin + t);
    tile.dropped[t] = nms.dropped[begin + t];
  }
  __syncthreads();
  const int row = t / kTileBytes, part = t % kTileBytes;
  unsigned bits = 0;
  for (int k = 0; k < 8; ++k) {
    const int j = part * 8 + k;
    if (row < j && j < count && suppresses(tile.box[row], tile.box[j], nms.rule)) bits |= 1u << k;
  }
  tile.bytes[row][part] = static_cast<unsigned char>(bits);
  __syncthreads();
}

// One thread. The greedy choice itself.
template <typename T>
__device__ void choose(Tile<T>& tile, int count) {
  Word kept = 0, gone = 0;
  for (int i = 0; i < count; ++i) {
    if (tile.dropped[i] || (gone >> i & 1)) continue;
    kept |= Word(1) << i;
    for (int part = 0; part < kTileBytes; ++part) gone |= Word(tile.bytes[i][part]) << (8 * part);
  }
  tile.kept = kept;
}

// All threads. Resolves positions [begin, end) of one group, among which nothing earlier is undecided. The
// kept boxes move to the front of the piece: later rounds read them there. Returns how many.
template <typename T>
__device__ int resolve_piece(const Nms<T>& nms, Tile<T>& tile, int64_t begin, int64_t end) {
  const int t = int(threadIdx.x);
  int total = 0;
  for (int64_t at = begin; at < end; at += kTile) {
    const int count = int(end - at < kTile ? end - at : kTile);
    pair_bits(nms, tile, at, count);
    if (t == 0) choose(tile, count);
    __syncthreads();
    const Word kept = tile.kept;
    const int survivors = __popcll(kept);
    if (t < count) {
      const bool mine = kept >> t & 1;
      nms.keep[nms.g.order[at + t]] = mine;
      if (mine) {
        const int rank = __popcll(kept & ((Word(1) << t) - 1));
        const NmsBox<T> b = tile.box[t];
        tile.survivors[rank] = b;
        T* to = nms.g.sorted + 4 * (begin + total + rank);  // at or before this tile: nobody else reads there
        to[0] = b.x1, to[1] = b.y1, to[2] = b.x2, to[3] = b.y2;
      }
    }
    total += survivors;
    __syncthreads();
    for (int64_t i = at + kTile + t; i < end; i += kGroupThreads) {
      if (nms.dropped[i]) continue;
      const NmsBox<T> b = nms.at(i);
      for (int k = 0; k < survivors; ++k) {
        if (!suppresses(tile.survivors[k], b, nms.rule)) continue;
        nms.dropped[i] = true;
        break;
      }
    }
    __syncthreads();  // the next tile reads `dropped` and overwrites the shared memory
  }
  return total;
}

template <typename T>
__global__ void __launch_bounds__(kGroupThreads) resolve(Nms<T> nms, int64_t round) {
  __shared__ Tile<T> tile;
  if (round * kPiece >= *nms.g.largest) return;
  for (int64_t at = blockIdx.x; at < *nms.g.count; at += gridDim.x) {
    const int64_t first = nms.g.first[at], last = nms.g.last[at], begin = first + round * kPiece;
    if (begin >= last) continue;
    const int kept = resolve_piece(nms, tile, begin, last - begin < kPiece ? last : begin + kPiece);
    if (threadIdx.x == 0) nms.kept[first] = kept;
  }
}

// Boxes after piece `round` of their group meet those that it kept.
template <typename T>
struct DropLater {
  Nms<T> nms;
  int64_t round;

  __device__ void operator()(int64_t i) const {
    if ((round + 1) * kPiece >= *nms.g.largest) return;
    const int64_t first = nms.g.start[i], piece = first + round * kPiece;
    if (i < piece + kPiece || nms.dropped[i]) return;
    const NmsBox<T> b = nms.at(i);
    const int kept = nms.kept[first];
    for (int k = 0; k < kept; ++k) {
      if (!suppresses(nms.at(piece + k), b, nms.rule)) continue;
      nms.dropped[i] = true;
      return;
    }
  }
};

template <typename T>
void run_rounds(const Tensor& boxes, const Nms<T>& nms, cudaStream_t stream) {
  find_groups(boxes, nms.g, stream);
  // As many as the largest group could need; those that none does end at once.
  const int64_t n = nms.g.n, rounds = (n + kPiece - 1) / kPiece;
  for (int64_t round = 0; round < rounds; ++round) {
    resolve<<<group_blocks(n), kGroupThreads, 0, stream>>>(nms, round);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    if (round + 1 < rounds) for_each(boxes, n, DropLater<T>{nms, round});
  }
}

Tensor nms_cuda(const Tensor& boxes, const Tensor& groups, const Tensor& order, double threshold,
                double extent, bool inclusive) {
  using torch::headeronly::IntHeaderOnlyArrayRef;
  using torch::headeronly::ScalarType;
  check_nms(boxes, groups, order);
  const Tensor b = torch::stable::contiguous(boxes), g = torch::stable::contiguous(groups);
  const Tensor o = torch::stable::contiguous(order);
  Tensor keep = empty_row(b, ScalarType::Bool);
  const int64_t n = b.size(0);
  if (n == 0) return keep;
  torch::stable::accelerator::DeviceGuard guard(b.get_device_index());
  const cudaStream_t stream = current_stream(b.get_device_index());
  const IntHeaderOnlyArrayRef size(&n, 1);
  Tensor dropped = torch::stable::new_zeros(b, size, ScalarType::Bool);
  Tensor kept = torch::stable::new_empty(b, size, ScalarType::Int);
  GroupMemory memory(b);
  LIBRA_DISPATCH_FLOAT_DOUBLE(b.scalar_type(), "nms", [&] {
    Nms<scalar_t> nms;
    nms.g = memory.view<scalar_t>(b, g, o);
    nms.rule = nms_rule<scalar_t>(threshold, extent, inclusive);
    nms.dropped = dropped.mutable_data_ptr<bool>();
    nms.keep = keep.mutable_data_ptr<bool>();
    nms.kept = kept.mutable_data_ptr<int>();
    run_rounds(b, nms, stream);
  });
  return keep;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) { m.impl("nms_in_order", TORCH_BOX(&nms_cuda)); }
}  // namespace detectron_libra
