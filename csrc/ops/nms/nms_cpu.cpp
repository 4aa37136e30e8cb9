// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "common/simd.h"
#include "ops/nms/group_starts.h"
#include "ops/nms/nms_host.h"
#include "ops/nms/nms_index.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

// One group: boxes [begin, end) of the order.
template <typename T>
class Suppression {
 public:
  Suppression(const T* corners, const int64_t* order, const NmsRule<T>& rule, bool* keep)
      : corners_(corners), order_(order), rule_(rule), keep_(keep) {}

  void run(int64_t begin, int64_t end) {
    boxes_.clear();
    for (int64_t i = begin; i < end; ++i) boxes_.push_back(nms_box(corners_ + 4 * order_[i], rule_.extent));
    near_.build(boxes_, rule_);
    vectorized([&] {
      for (int64_t i = 0; i < end - begin; ++i) {
        const bool kept = !near_.dropped(i);
        keep_[order_[begin + i]] = kept;
        if (kept) near_.drop_near(i, boxes_[i]);
      }
    });
  }

 private:
  const T* corners_;
  const int64_t* order_;
  NmsRule<T> rule_;
  bool* keep_;
  std::vector<NmsBox<T>> boxes_;
  NearBoxes<T> near_;
};

template <typename T>
void nms_of(const Tensor& boxes, const int64_t* groups, const int64_t* order, const NmsRule<T>& rule,
            bool* keep) {
  const std::vector<int64_t> starts = group_starts(groups, order, boxes.size(0));
  const T* corners = boxes.const_data_ptr<T>();
  parallel_ranges(int64_t(starts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
    Suppression<T> group(corners, order, rule, keep);
    for (int64_t g = begin; g < end; ++g) group.run(starts[g], starts[g + 1]);
  });
}

Tensor nms_cpu(const Tensor& boxes, const Tensor& groups, const Tensor& order, double threshold,
               double extent, bool inclusive) {
  check_nms(boxes, groups, order);
  const Tensor b = torch::stable::contiguous(boxes), g = torch::stable::contiguous(groups);
  const Tensor o = torch::stable::contiguous(order);
  Tensor keep = empty_row(b, torch::headeronly::ScalarType::Bool);
  LIBRA_DISPATCH_FLOAT_DOUBLE(b.scalar_type(), "nms", [&] {
    const auto rule = nms_rule<scalar_t>(threshold, extent, inclusive);
    nms_of<scalar_t>(b, g.const_data_ptr<int64_t>(), o.const_data_ptr<int64_t>(), rule,
                     keep.mutable_data_ptr<bool>());
  });
  return keep;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) { m.impl("nms_in_order", TORCH_BOX(&nms_cpu)); }
}  // namespace detectron_libra
