// SPDX-License-Identifier: Apache-2.0
// CPU kernels of match_boxes. A task is a block of boxes of one image, which stays in the first-level cache
// while all ground truth passes by. Only the maxima of blocks are stored, not the matrix.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"
#include "ops/match_boxes/match_boxes_host.h"

namespace detectron_libra {
namespace {
using std::optional;
using torch::stable::Tensor;

constexpr int64_t kBoxes = 512;

// Coordinates of a block of boxes, each in a row; boxes that take no part have a factor of 0.
struct BoxBlock {
  float x1[kBoxes], y1[kBoxes], x2[kBoxes], y2[kBoxes], area[kBoxes], factor[kBoxes], iou[kBoxes];
  int64_t count;

  LIBRA_INLINE void load(const float* boxes, const bool* candidates, int64_t first, int64_t end,
                         float extent) {
    count = end - first;
    for (int64_t i = 0; i < kBoxes; ++i) {
      const int64_t from = first + (i < count ? i : 0);
      x1[i] = boxes[4 * from], y1[i] = boxes[4 * from + 1], x2[i] = boxes[4 * from + 2],
      y2[i] = boxes[4 * from + 3];
      factor[i] = i < count && (candidates == nullptr || candidates[from]) ? 1.0f : 0.0f;
    }
    for (int64_t i = 0; i < kBoxes; ++i) area[i] = MatchBox{x1[i], y1[i], x2[i], y2[i]}.area(extent);
  }

  LIBRA_INLINE void overlaps(const MatchBox& gt, float gt_area, float extent) {
    const MatchBox other = gt;
    for (int64_t i = 0; i < kBoxes; ++i) {
      const float value = overlap(MatchBox{x1[i], y1[i], x2[i], y2[i]}, area[i], other, gt_area, extent);
      iou[i] = factor[i] == 0.0f ? 0.0f : value;
    }
  }

  LIBRA_INLINE float largest() const {
    constexpr int kLanes = 16;
    float lane[kLanes] = {};
    for (int64_t i = 0; i < kBoxes; i += kLanes)
      for (int k = 0; k < kLanes; ++k) lane[k] = larger(iou[i + k], lane[k]);
    float most = 0;
    for (int k = 0; k < kLanes; ++k) most = larger(lane[k], most);
    return most;
  }
};

// The ground truth of an image that counts.
struct GroundTruth {
  std::vector<MatchBox> box;
  std::vector<float> area;
  std::vector<int32_t> row;

  GroundTruth(const float* boxes, const bool* valid, int64_t rows, float extent) {
    for (int64_t g = 0; g < rows; ++g) {
      if (!valid[g]) continue;
      box.push_back({boxes[4 * g], boxes[4 * g + 1], boxes[4 * g + 2], boxes[4 * g + 3]});
      area.push_back(box.back().area(extent));
      row.push_back(int32_t(g));
    }
  }
};

struct Found {
  float* iou;
  int64_t *index, *best_for;
};

// Largest overlap of each box of the block, and of each ground truth within the block.
void match_block(BoxBlock& block, const GroundTruth& gt, float extent, const Found& out, float* largest) {
  vectorized([&] {
    float best[kBoxes] = {};
    int32_t index[kBoxes] = {};
    for (size_t g = 0; g < gt.box.size(); ++g) {
      block.overlaps(gt.box[g], gt.area[g], extent);
      const int32_t row = gt.row[g];
      for (int64_t i = 0; i < kBoxes; ++i) {
        const bool better = block.iou[i] > best[i];
        best[i] = better ? block.iou[i] : best[i];
        index[i] = better ? row : index[i];
      }
      largest[g] = block.largest();
    }
    for (int64_t i = 0; i < block.count; ++i) {
      out.iou[i] = best[i];
      out.index[i] = index[i];
      out.best_for[i] = -1;
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> match_boxes_cpu(const Tensor& boxes, const Tensor& gt, const Tensor& valid,
                                                   const optional<Tensor>& candidates, double extent,
                                                   double min_best_iou) {
  using torch::headeronly::ScalarType;
  const MatchJob job = prepare_match(boxes, gt, "gt", valid, "valid", candidates, extent);
  Tensor iou = job.empty(ScalarType::Float), index = job.empty(ScalarType::Long),
         best_for = job.empty(ScalarType::Long);
  const Found all{iou.mutable_data_ptr<float>(), index.mutable_data_ptr<int64_t>(),
                  best_for.mutable_data_ptr<int64_t>()};
  const int64_t blocks = (job.count + kBoxes - 1) / kBoxes;
  for (int64_t n = 0; n < job.images; ++n) {
    const GroundTruth truth(job.gt_of(n), job.valid_of(n), job.num_gt, job.extent);
    const int64_t rows = int64_t(truth.box.size());
    std::vector<float> largest(blocks * rows), best(rows);
    const auto for_blocks = [&](const auto& body) {
      parallel_ranges(blocks, std::max<int64_t>(1, kGrain / (kBoxes * (rows + 1))),
                      [&](int64_t begin, int64_t end) {
                        BoxBlock block;
                        for (int64_t b = begin; b < end; ++b) body(block, b);
                      });
    };
    const auto load = [&](BoxBlock& block, int64_t b) {
      const int64_t first = b * kBoxes;
      block.load(job.boxes_of(n), job.candidates_of(n), first, std::min(job.count, first + kBoxes),
                 job.extent);
      const int64_t at = n * job.count + first;
      return Found{all.iou + at, all.index + at, all.best_for + at};
    };
    for_blocks([&](BoxBlock& block, int64_t b) {
      const Found out = load(block, b);
      match_block(block, truth, job.extent, out, largest.data() + b * rows);
    });
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t g = 0; g < rows; ++g) best[g] = larger(largest[b * rows + g], best[g]);
    // Only a block that holds a ground truth's largest overlap is looked at again.
    for_blocks([&](BoxBlock& block, int64_t b) {
      Found out{};
      for (int64_t g = 0; g < rows; ++g) {
        if (largest[b * rows + g] != best[g] || best[g] <= 0 || best[g] < float(min_best_iou)) continue;
        if (out.iou == nullptr) out = load(block, b);
        vectorized([&] { block.overlaps(truth.box[g], truth.area[g], job.extent); });
        for (int64_t i = 0; i < block.count; ++i)
          if (block.iou[i] == best[g]) out.best_for[i] = truth.row[g];
      }
    });
  }
  return {iou, index, best_for};
}

Tensor max_overlap_with_cpu(const Tensor& boxes, const Tensor& regions, const Tensor& mask, double extent) {
  const MatchJob job = prepare_match(boxes, regions, "regions", mask, "mask", std::nullopt, extent);
  Tensor out = job.empty(torch::headeronly::ScalarType::Float);
  float* shares = out.mutable_data_ptr<float>();
  const int64_t blocks = (job.count + kBoxes - 1) / kBoxes;
  for (int64_t n = 0; n < job.images; ++n) {
    const GroundTruth region(job.gt_of(n), job.valid_of(n), job.num_gt, job.extent);
    parallel_ranges(blocks, std::max<int64_t>(1, kGrain / (kBoxes * int64_t(region.box.size() + 1))),
                    [&](int64_t begin, int64_t end) {
                      BoxBlock block;
                      for (int64_t b = begin; b < end; ++b) {
                        const int64_t first = b * kBoxes;
                        block.load(job.boxes_of(n), nullptr, first, std::min(job.count, first + kBoxes),
                                   job.extent);
                        vectorized([&] {
                          std::fill_n(block.iou, kBoxes, 0.0f);
                          for (const MatchBox& box : region.box) {
                            const MatchBox other = box;
                            for (int64_t i = 0; i < kBoxes; ++i) {
                              const MatchBox mine{block.x1[i], block.y1[i], block.x2[i], block.y2[i]};
                              block.iou[i] = larger(intersection(mine, other, job.extent), block.iou[i]);
                            }
                          }
                        });
                        for (int64_t i = 0; i < block.count; ++i)
                          shares[n * job.count + first + i] = share_inside(block.iou[i], block.area[i]);
                      }
                    });
  }
  return out;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("match_boxes", TORCH_BOX(&match_boxes_cpu));
  m.impl("max_overlap_with", TORCH_BOX(&max_overlap_with_cpu));
}
}  // namespace detectron_libra
