// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "ops/sample_by_iou/sample_by_iou_host.h"
#include "ops/sample_by_iou/select.cuh"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

// Groups: the ground truths. An index that names none leaves its box out: the host cannot see it here.
struct InstanceBoxes {
  const int64_t* index;
  const bool* candidates;
  const float* keys;
  int64_t num_gt;

  __device__ bool has(int64_t i) const { return candidates[i] && index[i] >= 0 && index[i] < num_gt; }
  __device__ Item at(int64_t, int64_t i) const { return {has(i) ? index[i] : -1, key_code(keys[i])}; }
  __device__ bool keeps(int64_t, int64_t) const { return false; }
};

// What the sizes of an image's groups say.
struct Counts {
  int64_t candidates, share, balanced;
};

__device__ Counts counts_of(const int* totals, int64_t num_gt, int64_t num) {
  Counts c{0, 0, 0};
  int64_t instances = 0;
  for (int64_t g = 0; g < num_gt; ++g) {
    c.candidates += totals[g];
    instances += totals[g] > 0;
  }
  c.share = instance_share(num, instances);
  for (int64_t g = 0; g < num_gt; ++g) c.balanced += smaller<int64_t>(c.share < 0 ? 0 : c.share, totals[g]);
  return c;
}

struct InstanceQuotas {
  const int64_t* num;
  int64_t num_gt;

  __device__ auto of(int64_t row, const int* totals) const {
    const Counts c = counts_of(totals, num_gt, num[row]);
    const int64_t quota = c.candidates <= num[row] ? c.candidates : c.share;
    return [quota](int64_t) { return quota; };
  }
};

// Second stage of an image: nothing, fill up what is missing, or thin out what is too much.
enum Step : int64_t { kDone = 0, kFill = 1, kThin = 2 };

struct SetStep {
  const int* totals;
  int64_t num_gt;
  const int64_t* num;
  int64_t *step, *quota;

  __device__ void operator()(int64_t row) const {
    const Counts c = counts_of(totals + row * num_gt, num_gt, num[row]);
    const int64_t missing = num[row] - c.balanced;
    step[row] = c.candidates <= num[row] ? kDone : missing > 0 ? kFill : kThin;
    quota[row] = step[row] == kDone ? 0 : step[row] == kFill ? missing : num[row];
  }
};

struct SecondBoxes {
  InstanceBoxes all;
  int64_t form;
  const int64_t* step;
  const bool* chosen;

  __device__ Item at(int64_t row, int64_t i) const {
    const bool open = form == kReleasedParts || !chosen[i];
    const bool pool = step[row] == kThin ? chosen[i] : step[row] == kFill && open && all.has(i);
    return {pool ? 0 : -1, second_code(key_code(all.keys[i])) << 7};
  }
  __device__ bool keeps(int64_t row, int64_t i) const { return step[row] != kThin && chosen[i]; }
};

struct SecondQuotas {
  const int64_t* quota;

  __device__ auto of(int64_t row, const int*) const {
    const int64_t mine = quota[row];
    return [mine](int64_t) { return mine; };
  }
};

Tensor sample_by_instance_cuda(const Tensor& index, const Tensor& candidates, const Tensor& num,
                               const Tensor& keys, int64_t form, int64_t num_gt) {
  check_instances(form, num_gt);
  Samples s(candidates, num, keys);
  const Tensor gt =
      checked_rows(index, "index", torch::headeronly::ScalarType::Long, "int64", candidates, true);
  const int64_t images = s.images(), boxes = s.boxes(), groups = std::max<int64_t>(num_gt, 1);
  if (images == 0 || boxes == 0) return s.chosen;
  bool* chosen = s.chosen.mutable_data_ptr<bool>();
  const int64_t* wanted = s.num.const_data_ptr<int64_t>();
  const InstanceBoxes all{gt.const_data_ptr<int64_t>(), s.candidates.const_data_ptr<bool>(),
                          s.keys.const_data_ptr<float>(), num_gt};
  const Tensor totals =
      choose_smallest(s.candidates, images, boxes, groups, all, InstanceQuotas{wanted, groups}, chosen);
  Tensor step = torch::stable::empty_like(s.num), quota = torch::stable::empty_like(s.num);
  for_each(s.num, images,
           SetStep{totals.const_data_ptr<int>(), groups, wanted, step.mutable_data_ptr<int64_t>(),
                   quota.mutable_data_ptr<int64_t>()});
  choose_smallest(s.candidates, images, boxes, 1,
                  SecondBoxes{all, form, step.const_data_ptr<int64_t>(), chosen},
                  SecondQuotas{quota.const_data_ptr<int64_t>()}, chosen);
  return s.chosen;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CUDA, m) {
  m.impl("sample_by_instance", TORCH_BOX(&sample_by_instance_cuda));
}
}  // namespace detectron_libra
