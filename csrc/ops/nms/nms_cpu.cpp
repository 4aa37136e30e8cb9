// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "common/dispatch.h"
#include "common/parallel.h"
#include "ops/nms/nms.h"
#include "ops/nms/nms_host.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

// Boxes in order, one array a coordinate: the inner loop reads each in a row.
template <typename T>
struct SortedBoxes {
  std::vector<T> x1, y1, x2, y2, area;
  std::vector<uint8_t> dropped;

  SortedBoxes(const T* boxes, const int64_t* order, int64_t n, T extent)
      : x1(n), y1(n), x2(n), y2(n), area(n), dropped(n) {
    for (int64_t i = 0; i < n; ++i) {
      const T* box = boxes + 4 * order[i];
      x1[i] = box[0], y1[i] = box[1], x2[i] = box[2], y2[i] = box[3];
      area[i] = nms_area(box[0], box[1], box[2], box[3], extent);
    }
  }
};

template <typename T>
inline void drop_overlapping(const T* x1, const T* y1, const T* x2, const T* y2, const T* area,
                             uint8_t* dropped, int64_t kept, int64_t end, T threshold, T extent,
                             bool inclusive) {
  const NmsBox<T> a{x1[kept], y1[kept], x2[kept], y2[kept], area[kept]};
#pragma GCC ivdep
  for (int64_t j = kept + 1; j < end; ++j) {
    dropped[j] |= suppresses(a, NmsBox<T>{x1[j], y1[j], x2[j], y2[j], area[j]}, threshold, extent, inclusive);
  }
}

template <typename T>
void suppress_group(SortedBoxes<T>& b, int64_t begin, int64_t end, T threshold, T extent, bool inclusive) {
  for (int64_t i = begin; i < end; ++i) {
    if (b.dropped[i]) continue;
    drop_overlapping(b.x1.data(), b.y1.data(), b.x2.data(), b.y2.data(), b.area.data(), b.dropped.data(), i,
                     end, threshold, extent, inclusive);
  }
}

template <typename T>
void nms_of(const Tensor& boxes, const int64_t* groups, const int64_t* order, T threshold, T extent,
            bool inclusive, bool* keep) {
  const int64_t n = boxes.size(0);
  SortedBoxes<T> sorted(boxes.const_data_ptr<T>(), order, n, extent);
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < n; ++i) {
    if (i == 0 || groups[order[i]] != groups[order[i - 1]]) starts.push_back(i);
  }
  starts.push_back(n);
  parallel_ranges(int64_t(starts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      suppress_group(sorted, starts[g], starts[g + 1], threshold, extent, inclusive);
    }
  });
  for (int64_t i = 0; i < n; ++i) keep[order[i]] = !sorted.dropped[i];
}

Tensor nms_cpu(const Tensor& boxes, const Tensor& groups, const Tensor& order, double threshold,
               double extent, bool inclusive) {
  check_nms(boxes, groups, order);
  const Tensor b = torch::stable::contiguous(boxes), g = torch::stable::contiguous(groups);
  const Tensor o = torch::stable::contiguous(order);
  const int64_t n = b.size(0);
  Tensor keep = torch::stable::new_empty(b, torch::headeronly::IntHeaderOnlyArrayRef(&n, 1),
                                         torch::headeronly::ScalarType::Bool);
  LIBRA_DISPATCH_FLOAT_DOUBLE(b.scalar_type(), "nms", [&] {
    nms_of<scalar_t>(b, g.const_data_ptr<int64_t>(), o.const_data_ptr<int64_t>(), scalar_t(threshold),
                     scalar_t(extent), inclusive, keep.mutable_data_ptr<bool>());
  });
  return keep;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) { m.impl("nms_in_order", TORCH_BOX(&nms_cpu)); }
}  // namespace detectron_libra
