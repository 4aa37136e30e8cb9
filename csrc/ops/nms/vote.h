// SPDX-License-Identifier: Apache-2.0
#pragma once
// Box voting: the sums over the boxes that vote for one, and what becomes of its corners and score. The
// idea is from arXiv:1505.01749, section 4; the scoring methods are those of Detectron's utils/boxes.py.
#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "ops/nms/nms.h"

namespace detectron_libra {

// Numbers that the Python side passes as `method`.
enum VoteMethod : int64_t {
  kId = 0,
  kTempAvg = 1,
  kAvg = 2,
  kIouAvg = 3,
  kGeneralizedAvg = 4,
  kQuasiSum = 5
};

// p against 1 - p, each raised to 1 / beta: a probability after its odds met a temperature.
LIBRA_HD double tempered(double p, double beta) {
  const double yes = pow(p, 1.0 / beta), no = pow(1.0 - p, 1.0 / beta);
  return yes / (yes + no);
}

// Always in float64: a sum of many float32 boxes keeps their precision.
struct VoteSums {
  double x1, y1, x2, y2, weight;  // score-weighted corners; the scores' sum
  double score, count;            // what the method averages, and over how much

  LIBRA_HD void add(const double* corners, double s, double iou, int64_t method, double beta) {
    x1 += s * corners[0], y1 += s * corners[1], x2 += s * corners[2], y2 += s * corners[3];
    weight += s;
    score += method == kTempAvg          ? tempered(s, beta)
             : method == kIouAvg         ? s * iou
             : method == kGeneralizedAvg ? pow(s, beta)
                                         : s;
    count += method == kIouAvg ? iou : 1.0;
  }

  LIBRA_HD void add(const VoteSums& o) {
    x1 += o.x1, y1 += o.y1, x2 += o.x2, y2 += o.y2;
    weight += o.weight, score += o.score, count += o.count;
  }

  // Without a vote, or with votes that weigh nothing, the corners and the score stay.
  template <typename T>
  LIBRA_HD void finish(const T* corners, T s, int64_t method, double beta, T* box, T* out) const {
    const double sums[4] = {x1, y1, x2, y2};
    for (int k = 0; k < 4; ++k) box[k] = weight != 0 ? T(sums[k] / weight) : corners[k];
    const double mean = score / count;
    const double voted = method == kGeneralizedAvg ? pow(mean, 1.0 / beta)
                         : method == kQuasiSum     ? score / pow(count, beta)
                                                   : mean;
    *out = method == kId || count == 0 ? s : T(voted);
  }
};

template <typename T>
struct VoteRule {
  T threshold, extent;
  int64_t method;
  double beta;
};

template <typename T>
VoteRule<T> vote_rule(double threshold, double extent, int64_t method, double beta) {
  return {T(threshold), T(extent), method, beta};
}

}  // namespace detectron_libra
