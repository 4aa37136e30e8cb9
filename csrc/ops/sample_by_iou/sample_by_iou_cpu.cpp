// SPDX-License-Identifier: Apache-2.0
// One pass over an image's boxes: vector code turns keys and IoU into integers, and a few scalar steps keep
// the smallest of each group. Nothing is sorted.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

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

// All bits where true: what selects in vector code where the compiler sees a branch in ?:.
LIBRA_INLINE uint32_t all_bits(bool is) { return 0u - uint32_t(is); }

void uniform_row(const bool* candidates, int64_t num, const float* keys, int64_t boxes, bool* chosen) {
  Smallest kept(num, boxes);
  KeyBlock block;
  for (int64_t first = 0; first < boxes; first += kBlock) {
    const int64_t count = std::min(kBlock, boxes - first);
    vectorized([&] {
      const uint8_t* in = reinterpret_cast<const uint8_t*>(candidates) + first;
      const float* key = keys + first;
      for (int64_t i = 0; i < count; ++i) block.code[i] = key_code(key[i]) | all_bits(in[i] == 0);
      block.find_hits(count, kept.limit());
    });
    kept.offer(block, count, first);
  }
  std::fill_n(chosen, boxes, false);
  kept.cut();
  mark(kept, chosen);
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

// A block of boxes. group: a part, `bins` for the low set, `bins` + 1 for neither. first: the key for that
// group, kNever where it is not below the group's limit. second: the stirred key in the IoU set.
struct Block {
  int32_t group[kBlock];
  KeyBlock first, second;
};

LIBRA_INLINE void classify(const float* iou, const uint8_t* in, const float* keys, int64_t count,
                           const Parts& parts, const LowSet& low_set, const uint32_t* limits, Block& block) {
  const LowSet low = low_set;
  const int32_t bins = int32_t(parts.bins);
  int32_t part[kBlock];
  uint32_t limit[kBlock];
  for (int64_t i = 0; i < count; ++i) part[i] = bins + 1, limit[i] = 0;
  for (int32_t k = 0; k <= bins; ++k) {
    const float edge = parts.edge(k);
    const int32_t its_part = k < bins ? k : bins + 1;
    const uint32_t its_limit = limits[its_part];
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t beyond = all_bits(!(edge > iou[i]));
      part[i] = int32_t((uint32_t(its_part) & beyond) | (uint32_t(part[i]) & ~beyond));
      limit[i] = (its_limit & beyond) | (limit[i] & ~beyond);
    }
  }
  const uint32_t low_limit = limits[bins];
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t out = all_bits(in[i] == 0), is_low = all_bits(low.has(iou[i])), code = key_code(keys[i]);
    const uint32_t its_limit = (low_limit & is_low) | (limit[i] & ~is_low);
    block.group[i] = int32_t((uint32_t(bins) & is_low) | (uint32_t(part[i]) & ~is_low));
    block.first.code[i] = code | out | all_bits(code >= its_limit);
    block.second.code[i] = second_code(code) | out | is_low;
  }
}

// Hands a block's keys to their groups. Limits were taken at the block's start: they may have fallen since.
void offer_to_groups(const Block& block, int64_t count, int64_t first, std::vector<Smallest>& groups) {
  for (int64_t start = 0; start < count; start += kStep) {
    if (!block.first.hit[start / kStep]) continue;
    for (Smallest& group : groups) group.make_room();
    const int64_t stop = std::min(count, start + kStep);
    for (int64_t i = start; i < stop; ++i) groups[block.group[i]].add(block.first.code[i], first + i);
  }
}

void iou_row(const float* iou, const bool* candidates, int64_t num, const float* keys, int64_t boxes,
             float high, const IouRule& rule, bool* chosen) {
  const Wanted wanted = wanted_of(num, rule.floor_fraction, rule.bins);
  const Parts parts = parts_of(rule.low, high, rule.bins);
  std::vector<Smallest> groups;
  for (int64_t g = 0; g < rule.bins; ++g) groups.emplace_back(wanted.share, boxes);
  groups.emplace_back(wanted.num, boxes);  // the low set gives at most that many
  groups.emplace_back(0, boxes);
  // By the stirred key, the `num` smallest of the whole IoU set: at most `from_parts` of them turn out to be
  // chosen already, so that enough are left for the rest.
  Smallest rest(wanted.num, boxes);
  std::vector<uint32_t> limits(groups.size());
  Block block;
  for (int64_t first = 0; first < boxes; first += kBlock) {
    const int64_t count = std::min(kBlock, boxes - first);
    for (size_t g = 0; g < groups.size(); ++g) limits[g] = groups[g].limit();
    vectorized([&] {
      classify(iou + first, reinterpret_cast<const uint8_t*>(candidates) + first, keys + first, count, parts,
               rule.low_set, limits.data(), block);
      block.first.find_hits(count, kNever);
      block.second.find_hits(count, rest.limit());
    });
    offer_to_groups(block, count, first, groups);
    rest.offer(block.second, count, first);
  }
  std::fill_n(chosen, boxes, false);
  Smallest& low_set = groups[rule.bins];
  int64_t from_parts = 0;
  for (Smallest& group : groups) group.cut();
  for (int64_t g = 0; g < rule.bins; ++g) {
    mark(groups[g], chosen);
    from_parts += groups[g].size();
  }
  rest.cut();
  const Fill fill = fill_of(wanted, rest.size(), low_set.size(), from_parts);
  rest.drop([&](int64_t column) { return chosen[column]; });
  rest.cut(fill.rest);
  low_set.cut(fill.low);
  mark(rest, chosen);
  mark(low_set, chosen);
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
