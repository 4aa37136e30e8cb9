// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "ops/sample_by_iou/sample_by_iou_host.h"
#include "ops/sample_by_iou/select.cuh"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

// The stirred key in as many bits as the first, for the buckets.
__device__ uint32_t second_of(float key) { return second_code(key_code(key)) << 7; }

struct UniformBoxes {
  const bool* candidates;
  const float* keys;

  __device__ Item at(int64_t, int64_t i) const { return {candidates[i] ? 0 : -1, key_code(keys[i])}; }
  __device__ bool keeps(int64_t, int64_t) const { return false; }
};

struct UniformQuotas {
  const int64_t* num;

  __device__ auto of(int64_t row, const int*) const {
    const int64_t quota = num[row];
    return [quota](int64_t) { return quota; };
  }
};

Tensor sample_uniform_cuda(const Tensor& candidates, const Tensor& num, const Tensor& keys) {
  Samples s(candidates, num, keys);
  if (s.images() == 0 || s.boxes() == 0) return s.chosen;
  choose_smallest(s.candidates, s.images(), s.boxes(), 1,
                  UniformBoxes{s.candidates.const_data_ptr<bool>(), s.keys.const_data_ptr<float>()},
                  UniformQuotas{s.num.const_data_ptr<int64_t>()}, s.chosen.mutable_data_ptr<bool>());
  return s.chosen;
}

// Groups: the parts, the low set, and what of the IoU set is in no part.
struct IouBoxes {
  const float *iou, *keys, *tops;  // tops null: the parts end at rule.high
  const bool* candidates;
  IouRule rule;

  __device__ Item at(int64_t row, int64_t i) const {
    const uint32_t code = key_code(keys[i]);
    if (!candidates[i]) return {-1, code};
    if (rule.low_set.has(iou[i])) return {rule.bins, code};
    const int64_t part = parts_of(rule.low, tops ? tops[row] : rule.high, rule.bins).of(iou[i]);
    return {part < rule.bins ? part : rule.bins + 1, code};
  }
  __device__ bool keeps(int64_t, int64_t) const { return false; }
};

struct IouQuotas {
  const int64_t* num;
  IouRule rule;
  const int* first_totals;  // second stage: sizes of the first stage's groups; otherwise null

  __device__ auto of(int64_t row, const int* totals) const {
    const int* sizes = first_totals ? first_totals + row * (rule.bins + 2) : totals;
    const Wanted wanted = wanted_of(num[row], rule.floor_fraction, rule.bins);
    int64_t iou_set = sizes[rule.bins + 1], from_parts = 0;
    for (int64_t g = 0; g < rule.bins; ++g) {
      iou_set += sizes[g];
      from_parts += smaller<int64_t>(wanted.share, sizes[g]);
    }
    const Fill fill = fill_of(wanted, iou_set, sizes[rule.bins], from_parts);
    const bool second = first_totals != nullptr;
    const int64_t bins = rule.bins;
    return [=](int64_t g) {
      if (second) return fill.rest;
      return g < bins ? wanted.share : g == bins ? fill.low : int64_t(0);
    };
  }
};

// What the first stage left of the IoU set, by stirred keys.
struct RestBoxes {
  IouBoxes all;
  const bool* chosen;

  __device__ Item at(int64_t, int64_t i) const {
    const bool pool = all.candidates[i] && !chosen[i] && !all.rule.low_set.has(all.iou[i]);
    return {pool ? 0 : -1, second_of(all.keys[i])};
  }
  __device__ bool keeps(int64_t, int64_t i) const { return chosen[i]; }
};

// Block = image; NaN where there is one, as torch's amax.
__global__ void largest_of_rows(int64_t columns, const float* iou, float* tops) {
  __shared__ float most[kThreads];
  float mine = -INFINITY;
  for (int64_t i = threadIdx.x; i < columns; i += blockDim.x) {
    const float x = iou[blockIdx.x * columns + i];
    mine = x > mine || x != x ? x : mine;
  }
  most[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      const float x = most[threadIdx.x + half], y = most[threadIdx.x];
      most[threadIdx.x] = x > y || x != x ? x : y;
    }
  }
  if (threadIdx.x == 0) tops[blockIdx.x] = most[0];
}

Tensor largest_of(const Tensor& iou) {
  const int64_t rows = iou.size(0);
  Tensor tops = torch::stable::new_empty(iou, torch::headeronly::IntHeaderOnlyArrayRef(&rows, 1));
  torch::stable::accelerator::DeviceGuard guard(iou.get_device_index());
  largest_of_rows<<<unsigned(rows), kThreads, 0, current_stream(iou.get_device_index())>>>(
      iou.size(1), iou.const_data_ptr<float>(), tops.mutable_data_ptr<float>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return tops;
}

Tensor sample_by_iou_cuda(const Tensor& iou, const Tensor& candidates, const Tensor& num, const Tensor& keys,
                          const optional<Tensor>& max_iou, int64_t form, int64_t bins, double floor,
                          double floor_fraction, double high, double low) {
  const IouRule rule(form, bins, floor, floor_fraction, high, low);
  Samples s(candidates, num, keys);
  const Tensor rows =
      checked_rows(iou, "iou", torch::headeronly::ScalarType::Float, "float32", candidates, true);
  optional<Tensor> tops = checked_max_iou(max_iou, candidates);
  if (s.images() == 0 || s.boxes() == 0) return s.chosen;
  if (rule.ends_at_largest() && !tops.has_value()) tops = largest_of(rows);
  const int64_t* wanted = s.num.const_data_ptr<int64_t>();
  bool* chosen = s.chosen.mutable_data_ptr<bool>();
  const IouBoxes boxes{rows.const_data_ptr<float>(), s.keys.const_data_ptr<float>(),
                       rule.ends_at_largest() ? tops->const_data_ptr<float>() : nullptr,
                       s.candidates.const_data_ptr<bool>(), rule};
  const Tensor totals = choose_smallest(s.candidates, s.images(), s.boxes(), bins + 2, boxes,
                                        IouQuotas{wanted, rule, nullptr}, chosen);
  choose_smallest(s.candidates, s.images(), s.boxes(), 1, RestBoxes{boxes, chosen},
                  IouQuotas{wanted, rule, totals.const_data_ptr<int>()}, chosen);
  return s.chosen;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("sample_uniform", TORCH_BOX(&sample_uniform_cuda));
  m.impl("sample_by_iou", TORCH_BOX(&sample_by_iou_cuda));
}
}  // namespace detectron_libra
