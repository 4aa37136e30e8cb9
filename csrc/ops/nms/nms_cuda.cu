// SPDX-License-Identifier: Apache-2.0
// Greedy suppression in two kernels and without the host: pairs in parallel into bits, then one block walks
// the boxes.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/dispatch.h"
#include "common/launch.cuh"
#include "ops/nms/nms.h"
#include "ops/nms/nms_host.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;
using Word = unsigned long long;

constexpr int kBits = 64;  // boxes per word of the mask
constexpr int kWalkThreads = 512;
constexpr int64_t kSharedWords = 6144;  // 48 KiB, what a block gets without asking: 393,216 boxes

template <typename T>
__device__ NmsBox<T> load_box(const T* boxes, int64_t index, T extent) {
  const T* b = boxes + 4 * index;
  return {b[0], b[1], b[2], b[3], nms_area(b[0], b[1], b[2], b[3], extent)};
}

// Bit j of mask[i][word]: box i suppresses box 64 * word + j, both counted in order, if it is kept. Only
// words from i / 64 on are written.
template <typename T>
__global__ void pair_bits(int64_t n, int64_t words, const T* boxes, const int64_t* groups,
                          const int64_t* order, T threshold, T extent, bool inclusive, Word* mask) {
  const int64_t row_word = blockIdx.y, word = blockIdx.x;
  if (word < row_word) return;
  __shared__ NmsBox<T> other[kBits];
  __shared__ int64_t other_group[kBits];
  const int64_t column = word * kBits + threadIdx.x;
  if (column < n) {
    other[threadIdx.x] = load_box(boxes, order[column], extent);
    other_group[threadIdx.x] = groups[order[column]];
  }
  __syncthreads();
  const int64_t row = row_word * kBits + threadIdx.x;
  if (row >= n) return;
  const NmsBox<T> mine = load_box(boxes, order[row], extent);
  const int64_t group = groups[order[row]];
  const int columns = int(n - word * kBits < kBits ? n - word * kBits : kBits);
  Word bits = 0;
  for (int j = word == row_word ? int(threadIdx.x) + 1 : 0; j < columns; ++j) {
    if (other_group[j] == group && suppresses(mine, other[j], threshold, extent, inclusive))
      bits |= Word(1) << j;
  }
  mask[row * words + word] = bits;
}

// One block: a box that no kept box has dropped is kept, and adds its bits to the dropped ones.
__global__ void walk(int64_t n, int64_t words, const int64_t* order, const Word* mask, bool* keep) {
  extern __shared__ Word dropped[];
  for (int64_t word = threadIdx.x; word < words; word += blockDim.x) dropped[word] = 0;
  __syncthreads();
  for (int64_t i = 0; i < n; ++i) {
    const bool kept = !(dropped[i / kBits] >> (i % kBits) & 1);
    if (threadIdx.x == 0) keep[order[i]] = kept;
    if (!kept) continue;
    __syncthreads();  // every thread has read its word before one of them changes it
    for (int64_t word = i / kBits + threadIdx.x; word < words; word += blockDim.x) {
      dropped[word] |= mask[i * words + word];
    }
    __syncthreads();
  }
}

template <typename T>
void launch_pair_bits(const Tensor& boxes, const int64_t* groups, const int64_t* order, T threshold, T extent,
                      bool inclusive, Word* mask, cudaStream_t stream) {
  const int64_t n = boxes.size(0), words = (n + kBits - 1) / kBits;
  pair_bits<<<dim3(unsigned(words), unsigned(words)), kBits, 0, stream>>>(
      n, words, boxes.const_data_ptr<T>(), groups, order, threshold, extent, inclusive, mask);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor nms_cuda(const Tensor& boxes, const Tensor& groups, const Tensor& order, double threshold,
                double extent, bool inclusive) {
  using torch::headeronly::IntHeaderOnlyArrayRef;
  using torch::headeronly::ScalarType;
  check_nms(boxes, groups, order);
  const Tensor b = torch::stable::contiguous(boxes), g = torch::stable::contiguous(groups);
  const Tensor o = torch::stable::contiguous(order);
  const int64_t n = b.size(0), words = (n + kBits - 1) / kBits;
  STD_TORCH_CHECK(words <= kSharedWords, "boxes has ", n, " rows, more than ", kSharedWords * kBits,
                  ": keep the best scores first");
  Tensor keep = torch::stable::new_empty(b, IntHeaderOnlyArrayRef(&n, 1), ScalarType::Bool);
  if (n == 0) return keep;
  torch::stable::accelerator::DeviceGuard guard(b.get_device_index());
  const cudaStream_t stream = current_stream(b.get_device_index());
  const int64_t bits = n * words;
  Tensor mask = torch::stable::new_empty(b, IntHeaderOnlyArrayRef(&bits, 1), ScalarType::Long);
  Word* mask_ptr = reinterpret_cast<Word*>(mask.mutable_data_ptr<int64_t>());
  LIBRA_DISPATCH_FLOAT_DOUBLE(b.scalar_type(), "nms", [&] {
    launch_pair_bits<scalar_t>(b, g.const_data_ptr<int64_t>(), o.const_data_ptr<int64_t>(),
                               scalar_t(threshold), scalar_t(extent), inclusive, mask_ptr, stream);
  });
  walk<<<1, kWalkThreads, size_t(words) * sizeof(Word), stream>>>(n, words, o.const_data_ptr<int64_t>(),
                                                                  mask_ptr, keep.mutable_data_ptr<bool>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return keep;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) { m.impl("nms_in_order", TORCH_BOX(&nms_cuda)); }
}  // namespace detectron_libra
