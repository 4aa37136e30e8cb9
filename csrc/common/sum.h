// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sums in two stages whose order depends on the number of elements alone: equal bits for any number of
// threads, any width of vector registers, and from run to run.
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/checks.h"

namespace detectron_libra {

// Elements that one partial sum covers.
constexpr int64_t kChunk = 4096;

inline int64_t chunks_of(int64_t elements) { return (elements + kChunk - 1) / kChunk; }

// dtype of a sum: half types are summed into float32.
inline torch::headeronly::ScalarType sum_dtype(const torch::stable::Tensor& t) {
  using torch::headeronly::ScalarType;
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// What a sum is multiplied by: scale / normalizer, the latter a 0-d tensor of the sum's dtype or absent (1).
inline void check_normalizer(const std::optional<torch::stable::Tensor>& normalizer,
                             const torch::stable::Tensor& like) {
  if (!normalizer.has_value()) return;
  check_same_device(*normalizer, "normalizer", like, "pred");
  STD_TORCH_CHECK(normalizer->numel() == 1, "normalizer must hold one number");
  STD_TORCH_CHECK(normalizer->scalar_type() == sum_dtype(like),
                  "normalizer must have the dtype of the sum: float64 for float64 input, otherwise float32");
}

// CPU: scale / normalizer.
template <typename C>
double factor_on_host(double scale, const std::optional<torch::stable::Tensor>& normalizer) {
  return normalizer.has_value() ? scale / double(*normalizer->const_data_ptr<C>()) : scale;
}

// CPU: adds up to kChunk numbers that arrive in blocks of kBlock, in kLanes sums side by side.
template <typename T>
struct Lanes {
  static constexpr int kLanes = 16, kBlock = 128;
  T lane[kLanes] = {};

  // The unused end of a last block must be 0.
  void add(const T* block) {
    for (int i = 0; i < kBlock; i += kLanes)
      for (int k = 0; k < kLanes; ++k) lane[k] += block[i + k];
  }

  double total() const {
    double sum = 0;
    for (int k = 0; k < kLanes; ++k) sum += double(lane[k]);
    return sum;
  }
};

inline double sum_in_order(const std::vector<double>& partial) {
  double total = 0;
  for (const double p : partial) total += p;
  return total;
}

}  // namespace detectron_libra
