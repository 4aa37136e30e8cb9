// SPDX-License-Identifier: Apache-2.0
// One pass over an image's boxes: vector code turns keys and IoU into integers, and a few scalar steps keep
// the smallest of each group. Nothing is sorted.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"
#include "ops/sample_by_iou/sample_by_iou_host.h"
#include "ops/sample_by_iou/smallest.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

// Calls row(image) for each image, on several threads where there is enough to do.
template <typename Row>
void for_each_image(const Samples& s, const Row& row) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.boxes()));
  parallel_ranges(s.images(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) row(image);
  });
}

void uniform_row(const bool* candidates, int64_t num, const float* keys, int64_t boxes, bool* chosen) {
  Smallest kept(num);
  uint32_t code[kBlock];
  for (int64_t first = 0; first < boxes; first += kBlock) {
    const int64_t count = std::min(kBlock, boxes - first);
    vectorized([&] {
      const uint8_t* in = reinterpret_cast<const uint8_t*>(candidates) + first;
      const float* key = keys + first;
      for (int64_t i = 0; i < count; ++i) code[i] = in[i] ? key_code(key[i]) : kNever;
    });
    kept.offer(code, count, first);
  }
  std::memset(chosen, 0, boxes);
  mark(kept.finish(), chosen);
}

Tensor sample_uniform_cpu(const Tensor& candidates, const Tensor& num, const Tensor& keys) {
  Samples s(candidates, num, keys);
  const int64_t boxes = s.boxes();
  const bool* in = s.candidates.const_data_ptr<bool>();
  const int64_t* wanted = s.num.const_data_ptr<int64_t>();
  const float* key = s.keys.const_data_ptr<float>();
  bool* out = s.chosen.mutable_data_ptr<bool>();
  for_each_image(s, [&](int64_t image) {
    uniform_row(in + image * boxes, wanted[image], key + image * boxes, boxes, out + image * boxes);
  });
  return s.chosen;
}

// A block of boxes as integers: the group of each (a part, `bins` for the low set, bins + 1 for what is drawn
// from no group), and its key for that group; its stirred key where it is in the IoU set.
struct Block {
  int32_t group[kBlock];
  uint32_t first[kBlock], second[kBlock];
};

LIBRA_INLINE void classify(const float* iou, const uint8_t* in, const float* keys, int64_t count,
                           const Parts& parts, const LowSet& low_set, Block& block) {
  const Parts p = parts;
  const LowSet low = low_set;
  int32_t reached[kBlock];
  const int32_t bins = int32_t(p.bins);
  for (int64_t i = 0; i < count; ++i) reached[i] = -1;
  for (int64_t k = 0; k <= p.bins; ++k) {
    const float edge = p.edge(k);
    for (int64_t i = 0; i < count; ++i) reached[i] += !(edge > iou[i]);
  }
  for (int64_t i = 0; i < count; ++i) {
    const bool is_in = in[i] != 0, is_low = low.has(iou[i]);
    const bool in_part = (reached[i] >= 0) & (reached[i] < bins);
    const int32_t group = is_low ? bins : (in_part ? reached[i] : bins + 1);
    const uint32_t code = key_code(keys[i]);
    block.group[i] = is_in ? group : bins + 1;
    block.first[i] = code;
    block.second[i] = is_in & !is_low ? second_code(code) : kNever;
  }
}

void iou_row(const float* iou, const bool* candidates, int64_t num, const float* keys, int64_t boxes,
             float high, const IouRule& rule, bool* chosen) {
  const Wanted wanted = wanted_of(num, rule.floor_fraction, rule.bins);
  const Parts parts = parts_of(rule.low, high, rule.bins);
  std::vector<Smallest> groups(rule.bins, Smallest(wanted.share));
  groups.emplace_back(wanted.num);  // the low set gives at most that many
  groups.emplace_back(0);
  // By the stirred key, the `num` smallest of the whole IoU set: at most `from_parts` of them turn out to be
  // chosen already, so that enough are left for the rest.
  Smallest rest(wanted.num);
  std::vector<uint32_t> limits;
  for (const Smallest& group : groups) limits.push_back(group.limit());
  Block block;
  for (int64_t first = 0; first < boxes; first += kBlock) {
    const int64_t count = std::min(kBlock, boxes - first);
    vectorized([&] {
      classify(iou + first, reinterpret_cast<const uint8_t*>(candidates) + first, keys + first, count, parts,
               rule.low_set, block);
    });
    for (int64_t i = 0; i < count; ++i) {
      const int32_t g = block.group[i];
      if (block.first[i] < limits[g]) limits[g] = groups[g].add(block.first[i], first + i);
    }
    rest.offer(block.second, count, first);
  }
  std::memset(chosen, 0, boxes);
  int64_t from_parts = 0;
  for (int64_t g = 0; g < rule.bins; ++g) from_parts += mark(groups[g].finish(), chosen);
  const int64_t iou_set = int64_t(rest.finish().size()), low_set = int64_t(groups[rule.bins].finish().size());
  const Fill fill = fill_of(wanted, iou_set, low_set, from_parts);
  rest.drop([&](int64_t column) { return chosen[column]; });
  mark(rest.finish(fill.rest), chosen);
  mark(groups[rule.bins].finish(fill.low), chosen);
}

// The largest, NaN where there is one, as torch's amax.
float largest(const float* iou, int64_t boxes) {
  constexpr int kLanes = 16;
  float most[kLanes], last = -std::numeric_limits<float>::infinity();
  bool nan = false;
  vectorized([&] {
    for (int k = 0; k < kLanes; ++k) most[k] = last;
    int any[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= boxes; i += kLanes) {
      for (int k = 0; k < kLanes; ++k) {
        most[k] = iou[i + k] > most[k] ? iou[i + k] : most[k];
        any[k] |= iou[i + k] != iou[i + k];
      }
    }
    for (; i < boxes; ++i) most[0] = iou[i] > most[0] ? iou[i] : most[0], any[0] |= iou[i] != iou[i];
    for (int k = 0; k < kLanes; ++k) last = most[k] > last ? most[k] : last, nan |= any[k] != 0;
  });
  return nan ? std::numeric_limits<float>::quiet_NaN() : last;
}

Tensor sample_by_iou_cpu(const Tensor& iou, const Tensor& candidates, const Tensor& num, const Tensor& keys,
                         const optional<Tensor>& max_iou, int64_t form, int64_t bins, double floor,
                         double floor_fraction, double high, double low) {
  const IouRule rule(form, bins, floor, floor_fraction, high, low);
  Samples s(candidates, num, keys);
  const Tensor rows =
      checked_rows(iou, "iou", torch::headeronly::ScalarType::Float, "float32", candidates, true);
  const optional<Tensor> given = checked_max_iou(max_iou, candidates);
  const int64_t boxes = s.boxes();
  const float *from = rows.const_data_ptr<float>(), *key = s.keys.const_data_ptr<float>();
  const float* tops = given.has_value() ? given->const_data_ptr<float>() : nullptr;
  const bool* in = s.candidates.const_data_ptr<bool>();
  const int64_t* wanted = s.num.const_data_ptr<int64_t>();
  bool* out = s.chosen.mutable_data_ptr<bool>();
  for_each_image(s, [&](int64_t image) {
    const int64_t at = image * boxes;
    const float top = !rule.ends_at_largest() ? rule.high : tops ? tops[image] : largest(from + at, boxes);
    iou_row(from + at, in + at, wanted[image], key + at, boxes, top, rule, out + at);
  });
  return s.chosen;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("sample_uniform", TORCH_BOX(&sample_uniform_cpu));
  m.impl("sample_by_iou", TORCH_BOX(&sample_by_iou_cpu));
}
}  // namespace detectron_libra
