// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the CPU and the CUDA kernel of balanced_l1_on_levels share: checks, allocation, and the term of a
// slot.
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "common/half.h"
#include "ops/balanced_l1/balanced_l1_host.h"
#include "ops/balanced_l1/on_levels.h"

namespace detectron_libra {

template <typename T>
LIBRA_HD accumulate_t<T> load(const T* from, int64_t i) {
#if defined(__CUDA_ARCH__)
  return accumulate_t<T>(from[i]);
#else
  return read(from, i);
#endif
}

template <typename T>
LIBRA_HD void store(T* to, int64_t i, accumulate_t<T> value) {
#if defined(__CUDA_ARCH__)
  to[i] = T(value);
#else
  write(to, i, value);
#endif
}

// The tensors of a call, in the order and dtype that the kernels read.
struct LevelInputs {
  TensorList deltas;
  torch::stable::Tensor anchors, boxes;
  std::optional<torch::stable::Tensor> locations, positive, index;
  LevelIndex levels;
  int64_t slots;

  Positives positives() const {
    const auto pointer = []<typename T>(const std::optional<torch::stable::Tensor>& t, const T*) {
      return t.has_value() ? t->const_data_ptr<T>() : nullptr;
    };
    const int64_t* none = nullptr;
    const bool* no_mask = nullptr;
    return {pointer(locations, none), pointer(positive, no_mask), pointer(index, none),
            boxes.const_data_ptr<float>(), locations.has_value() ? 0 : boxes.size(1)};
  }
};

// Everything a slot needs, on either device.
template <typename T, typename F, typename C = accumulate_t<T>>
struct SlotTerms {
  F form;
  LevelIndex levels;
  Positives positives;
  const float* anchors;
  C extent;
  const T* deltas[kMostLevels];
  T* gradients[kMostLevels];  // null where none is wanted

  // Loss of slot k; its gradient times `factor` goes where the deltas came from.
  LIBRA_HD double run(int64_t k, C factor) const {
    const Slot slot = positives.at(k, levels);
    if (slot.location < 0) return 0;
    const DeltaPlace place = levels.at(slot.location);
    C wanted[4];
    encode_deltas(anchors + 4 * (slot.location % levels.anchors), slot.box, extent, wanted);
    const T* from = deltas[place.level];
    T* to = gradients[place.level];
    double sum = 0;
    for (int i = 0; i < 4; ++i) {
      const int64_t at = place.offset + i * place.step;
      const Term<C> term = term_at(form, load(from, at) - wanted[i]);
      sum += double(term.value);
      if (to != nullptr) store(to, at, term.slope * factor);
    }
    return sum;
  }
};

template <typename T, typename F>
SlotTerms<T, F> slot_terms(const LevelInputs& in, const F& form, double extent, TensorList& gradients) {
  SlotTerms<T, F> terms{
      form, in.levels, in.positives(), in.anchors.const_data_ptr<float>(), accumulate_t<T>(extent), {}, {}};
  for (size_t i = 0; i < in.deltas.size(); ++i) {
    terms.deltas[i] = in.deltas[i].const_data_ptr<T>();
    terms.gradients[i] = gradients.empty() ? nullptr : gradients[i].mutable_data_ptr<T>();
  }
  return terms;
}

inline LevelIndex level_index(const TensorList& deltas) {
  LevelIndex index{int(deltas.size()), deltas[0].size(0), 0, deltas[0].size(1) / 4, {}};
  for (size_t i = 0; i < deltas.size(); ++i)
    index.add_level(int(i), deltas[i].size(2) * deltas[i].size(3), deltas[i].is_contiguous());
  return index;
}

inline void check_list(const LevelInputs& in) {
  using torch::headeronly::ScalarType;
  check_dtype(*in.locations, "locations", ScalarType::Long, "int64");
  check_dim(*in.locations, "locations", 1);
  check_dim(in.boxes, "boxes", 2);
  check_size(in.boxes, "boxes", 0, in.locations->size(0));
  check_size(in.boxes, "boxes", 1, 4);
}

inline void check_mask(const LevelInputs& in) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(in.positive.has_value() && in.index.has_value(),
                  "give locations, or positive and index: they say which deltas learn");
  check_dtype(*in.positive, "positive", ScalarType::Bool, "bool");
  check_dtype(*in.index, "index", ScalarType::Long, "int64");
  for (const auto& [tensor, name] : {std::pair(&*in.positive, "positive"), std::pair(&*in.index, "index")}) {
    check_dim(*tensor, name, 2);
    check_size(*tensor, name, 0, in.levels.images);
    check_size(*tensor, name, 1, in.levels.anchors);
  }
  check_dim(in.boxes, "boxes", 3);
  check_size(in.boxes, "boxes", 0, in.levels.images);
  check_size(in.boxes, "boxes", 2, 4);
}

inline LevelInputs checked_levels(const TensorList& deltas, const torch::stable::Tensor& anchors,
                                  const torch::stable::Tensor& boxes,
                                  const std::optional<torch::stable::Tensor>& locations,
                                  const std::optional<torch::stable::Tensor>& positive,
                                  const std::optional<torch::stable::Tensor>& index) {
  using torch::headeronly::ScalarType;
  check_pyramid(deltas, "deltas");
  check_floating(deltas[0], "deltas");
  STD_TORCH_CHECK(deltas.size() <= kMostLevels, "deltas: at most ", kMostLevels, " levels, got ",
                  deltas.size());
  STD_TORCH_CHECK(deltas[0].size(1) > 0 && deltas[0].size(1) % 4 == 0,
                  "deltas must have 4 channels an anchor, got ", deltas[0].size(1));
  LevelInputs in{{}, torch::stable::contiguous(anchors), torch::stable::contiguous(boxes), {}, {}, {}, {}, 0};
  for (const auto& t : deltas) in.deltas.push_back(is_dense(t) ? t : torch::stable::contiguous(t));
  in.levels = level_index(in.deltas);
  const auto take = [&](const std::optional<torch::stable::Tensor>& t, const char* name) {
    if (t.has_value()) check_same_device(*t, name, deltas[0], "deltas");
    return t.has_value() ? std::optional(torch::stable::contiguous(*t)) : std::nullopt;
  };
  in.locations = take(locations, "locations");
  in.positive = take(positive, "positive");
  in.index = take(index, "index");
  check_same_device(anchors, "anchors", deltas[0], "deltas");
  check_same_device(boxes, "boxes", deltas[0], "deltas");
  check_dtype(anchors, "anchors", ScalarType::Float, "float32");
  check_dtype(boxes, "boxes", ScalarType::Float, "float32");
  check_dim(anchors, "anchors", 2);
  check_size(anchors, "anchors", 0, in.levels.anchors);
  check_size(anchors, "anchors", 1, 4);
  locations.has_value() ? check_list(in) : check_mask(in);
  in.slots = locations.has_value() ? in.locations->size(0) : in.levels.locations();
  return in;
}

// 0 away from the positives; none at all where none is wanted.
inline TensorList zero_gradients(const LevelInputs& in, bool with_gradient) {
  TensorList gradients;
  for (size_t i = 0; with_gradient && i < in.deltas.size(); ++i) {
    gradients.push_back(allocate_like(in.deltas[i]));
    torch::stable::zero_(gradients.back());
  }
  return gradients;
}

}  // namespace detectron_libra
