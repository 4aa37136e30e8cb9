// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the CPU and the CUDA kernel share: checks, allocation, and where a level's anchors find their labels.
#include <optional>
#include <vector>

#include "common/checks.h"
#include "common/layout.h"
#include "common/sum.h"

namespace detectron_libra {

// One small integer per anchor, of any width.
struct Labels {
  const void* data;
  int bytes;

  LIBRA_HD int32_t get(int64_t i) const {
    switch (bytes) {
      case 1:
        return static_cast<const int8_t*>(data)[i];
      case 2:
        return static_cast<const int16_t*>(data)[i];
      case 4:
        return static_cast<const int32_t*>(data)[i];
      default:
        return int32_t(static_cast<const int64_t*>(data)[i]);
    }
  }
};

// One level as the kernels see it. Anchors are counted by rows, columns, anchors of the cell.
template <typename T>
struct FocalLevel {
  const T* logits;
  T* gradient;                   // null: not wanted
  int64_t height, width, first;  // first: anchor of the image that the level begins with
};

struct FocalOptions {
  double scale, alpha, gamma;
  int64_t num_classes;
  bool softmax;

  int64_t per_anchor() const { return num_classes + (softmax ? 1 : 0); }
};

struct FocalJob {
  TensorList logits, gradients;
  std::vector<bool> channels_last;
  std::vector<int64_t> first;
  torch::stable::Tensor labels, sum;
  std::optional<torch::stable::Tensor> weight, class_weight;
  int64_t images, cell_anchors, image_anchors;

  template <typename T>
  FocalLevel<T> level(size_t l) const {
    return {logits[l].const_data_ptr<T>(),
            gradients.empty() ? nullptr : const_cast<T*>(gradients[l].const_data_ptr<T>()), logits[l].size(2),
            logits[l].size(3), first[l]};
  }
  Labels label_reader() const { return {labels.data_ptr(), int(labels.element_size())}; }
  const float* weights() const { return weight.has_value() ? weight->const_data_ptr<float>() : nullptr; }
  const float* class_weights() const {
    return class_weight.has_value() ? class_weight->const_data_ptr<float>() : nullptr;
  }
};

inline void check_focal_map(const torch::stable::Tensor& t, const char* name, const FocalJob& job) {
  check_dim(t, name, 2);
  check_same_device(t, name, job.logits[0], "logits");
  check_size(t, name, 0, job.images);
  check_size(t, name, 1, job.image_anchors);
}

inline FocalJob prepare_focal_loss(const TensorList& logits, const torch::stable::Tensor& labels,
                                   const std::optional<torch::stable::Tensor>& weight,
                                   const std::optional<torch::stable::Tensor>& class_weight,
                                   const std::optional<torch::stable::Tensor>& normalizer,
                                   const FocalOptions& options, bool with_gradient) {
  using torch::headeronly::IntHeaderOnlyArrayRef;
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(!logits.empty(), "logits must hold at least one tensor");
  check_floating(logits[0], "logits");
  for (const auto& level : logits) {
    check_dim(level, "logits", 4);
    check_size(level, "logits", 0, logits[0].size(0));
    check_size(level, "logits", 1, logits[0].size(1));
    check_same_device(level, "logits", logits[0], "logits[0]");
    STD_TORCH_CHECK(level.scalar_type() == logits[0].scalar_type(), "logits must share one dtype");
  }
  STD_TORCH_CHECK(options.num_classes > 0, "num_classes must be positive, got ", options.num_classes);
  const int64_t channels = logits[0].size(1), per_anchor = options.per_anchor();
  STD_TORCH_CHECK(channels % per_anchor == 0, "logits have ", channels,
                  " channels, no multiple of one anchor's ", per_anchor);
  FocalJob job{{}, {}, {}, {}, labels, labels, weight, class_weight, logits[0].size(0), channels / per_anchor,
               0};
  for (const auto& level : logits) {
    const bool last = is_channels_last(level) && !level.is_contiguous();
    job.channels_last.push_back(last);
    job.logits.push_back(in_format(level, last));
    if (with_gradient)
      job.gradients.push_back(empty_in_format(level, sizes_of(level), level.scalar_type(), last));
    job.first.push_back(job.image_anchors);
    job.image_anchors += job.cell_anchors * level.size(2) * level.size(3);
  }
  check_focal_map(labels, "labels", job);
  const ScalarType t = labels.scalar_type();
  STD_TORCH_CHECK(
      t == ScalarType::Char || t == ScalarType::Short || t == ScalarType::Int || t == ScalarType::Long,
      "labels must be int8, int16, int32 or int64");
  job.labels = torch::stable::contiguous(labels);
  if (weight.has_value()) {
    check_focal_map(*weight, "weight", job);
    check_dtype(*weight, "weight", ScalarType::Float, "float32");
    job.weight = torch::stable::contiguous(*weight);
  }
  if (class_weight.has_value()) {
    check_dim(*class_weight, "class_weight", 1);
    check_size(*class_weight, "class_weight", 0, options.num_classes);
    check_dtype(*class_weight, "class_weight", ScalarType::Float, "float32");
    check_same_device(*class_weight, "class_weight", logits[0], "logits");
    job.class_weight = torch::stable::contiguous(*class_weight);
  }
  check_normalizer(normalizer, logits[0]);
  job.sum = torch::stable::new_empty(logits[0], IntHeaderOnlyArrayRef(), sum_dtype(logits[0]));
  return job;
}

}  // namespace detectron_libra
