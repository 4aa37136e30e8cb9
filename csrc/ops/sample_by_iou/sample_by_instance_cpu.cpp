// SPDX-License-Identifier: Apache-2.0
// The positives of an image are few: they are put side by side, a ground truth at a time, and cut to its
// share.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "ops/sample_by_iou/sample_by_iou_host.h"
#include "ops/sample_by_iou/smallest.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

struct Image {
  const int64_t* index;
  const bool* candidates;
  const float* keys;
  int64_t boxes, num, num_gt;
};

// Candidates of each ground truth one after the other; ground truth g's are [starts[g], starts[g + 1]).
struct ByInstance {
  std::vector<Ranked> all;
  std::vector<int64_t> starts;

  explicit ByInstance(const Image& image) : starts(image.num_gt + 1) {
    std::vector<int64_t> columns;
    for (int64_t i = 0; i < image.boxes; ++i) {
      if (!image.candidates[i]) continue;
      const int64_t gt = image.index[i];
      columns.push_back(i);
      ++starts[gt + 1];
    }
    for (int64_t g = 0; g < image.num_gt; ++g) starts[g + 1] += starts[g];
    std::vector<int64_t> next(starts.begin(), starts.end());
    all.resize(columns.size());
    for (const int64_t i : columns) all[next[image.index[i]]++] = ranked(key_code(image.keys[i]), i);
  }

  int64_t instances() const {
    int64_t count = 0;
    for (size_t g = 0; g + 1 < starts.size(); ++g) count += starts[g + 1] > starts[g];
    return count;
  }

  // The `share` smallest keys of each ground truth.
  std::vector<Ranked> smallest_of_each(int64_t share) {
    std::vector<Ranked> out;
    for (size_t g = 0; g + 1 < starts.size(); ++g) {
      const auto begin = all.begin() + starts[g], end = all.begin() + starts[g + 1];
      const auto stop = end - begin > share ? begin + std::max<int64_t>(share, 0) : end;
      if (stop != end) std::nth_element(begin, stop, end);
      out.insert(out.end(), begin, stop);
    }
    return out;
  }
};

// `num` of the pool by their stirred keys.
std::vector<Ranked> draw_again(const std::vector<Ranked>& pool, int64_t num, const float* keys,
                               const bool* without) {
  std::vector<Ranked> kept;
  for (const Ranked r : pool) {
    const uint32_t column = uint32_t(r);
    if (!(without && without[column])) kept.push_back(ranked(second_code(key_code(keys[column])), column));
  }
  smallest_first(kept.data(), int64_t(kept.size()), num);
  kept.resize(std::clamp<int64_t>(num, 0, int64_t(kept.size())));
  return kept;
}

void instance_row(const Image& image, int64_t form, bool* chosen) {
  std::memset(chosen, 0, image.boxes);
  ByInstance by_instance(image);
  if (int64_t(by_instance.all.size()) <= image.num) {
    mark(by_instance.all, chosen);
    return;
  }
  const std::vector<Ranked> balanced =
      by_instance.smallest_of_each(instance_share(image.num, by_instance.instances()));
  const int64_t missing = image.num - int64_t(balanced.size());
  if (missing <= 0) {
    mark(draw_again(balanced, image.num, image.keys, nullptr), chosen);
    return;
  }
  mark(balanced, chosen);
  mark(draw_again(by_instance.all, missing, image.keys, form == kPaperParts ? chosen : nullptr), chosen);
}

// Before the threads start: what they throw loses its words.
void check_index(const int64_t* index, const bool* candidates, int64_t count, int64_t num_gt) {
  for (int64_t i = 0; i < count; ++i)
    STD_TORCH_CHECK(!candidates[i] || (index[i] >= 0 && index[i] < num_gt), "index has ", index[i],
                    " for a candidate, and num_gt is ", num_gt, ": it must be in 0..num_gt-1");
}

Tensor sample_by_instance_cpu(const Tensor& index, const Tensor& candidates, const Tensor& num,
                              const Tensor& keys, int64_t form, int64_t num_gt) {
  check_instances(form, num_gt);
  Samples s(candidates, num, keys);
  const Tensor gt =
      checked_rows(index, "index", torch::headeronly::ScalarType::Long, "int64", candidates, true);
  const int64_t boxes = s.boxes();
  const int64_t *gts = gt.const_data_ptr<int64_t>(), *wanted = s.num.const_data_ptr<int64_t>();
  const bool* in = s.candidates.const_data_ptr<bool>();
  const float* key = s.keys.const_data_ptr<float>();
  check_index(gts, in, s.images() * boxes, num_gt);
  bool* out = s.chosen.mutable_data_ptr<bool>();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, boxes));
  parallel_ranges(s.images(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t at = n * boxes;
      instance_row({gts + at, in + at, key + at, boxes, wanted[n], num_gt}, form, out + at);
    }
  });
  return s.chosen;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("sample_by_instance", TORCH_BOX(&sample_by_instance_cpu));
}
}  // namespace detectron_libra
