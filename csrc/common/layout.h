// SPDX-License-Identifier: Apache-2.0
#pragma once
// (N, C, H, W) tensors in either memory format, seen by a kernel as (outer, H, W, inner) with inner
// innermost: contiguous has outer = N * C and inner = 1, channels_last has outer = N and inner = C. One loop
// serves both.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <vector>

#include "common/dispatch.h"
#include "common/host_device.h"

namespace detectron_libra {

using TensorList = std::vector<torch::stable::Tensor>;

// One tensor as a kernel sees it.
struct View {
  int64_t outer, height, width, inner;

  LIBRA_HD int64_t at(int64_t o, int64_t y, int64_t x) const {
    return ((o * height + y) * width + x) * inner;
  }
  LIBRA_HD int64_t numel() const { return outer * height * width * inner; }
};

inline bool is_channels_last(const torch::stable::Tensor& t) {
  int64_t expected = 1;
  for (const int dim : {1, 3, 2, 0}) {
    if (t.size(dim) != 1 && t.stride(dim) != expected) return false;
    expected *= t.size(dim);
  }
  return true;
}

// Whether an operator on these tensors works in channels_last: when one of them cannot be read as contiguous.
// (A tensor with one channel or one cell is both, and has no say.)
inline bool any_channels_last(const TensorList& tensors) {
  for (const auto& t : tensors)
    if (is_channels_last(t) && !t.is_contiguous()) return true;
  return false;
}

inline torch::headeronly::MemoryFormat memory_format(bool channels_last) {
  return channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                       : torch::headeronly::MemoryFormat::Contiguous;
}

// `t` itself where its memory already has the format; a copy only for odd strides or mixed inputs.
inline torch::stable::Tensor in_format(const torch::stable::Tensor& t, bool channels_last) {
  if (channels_last ? is_channels_last(t) : t.is_contiguous()) return t;
  return torch::stable::contiguous(t, memory_format(channels_last));
}

inline TensorList in_format(const TensorList& tensors, bool channels_last) {
  TensorList out;
  for (const auto& t : tensors) out.push_back(in_format(t, channels_last));
  return out;
}

inline torch::stable::Tensor empty_in_format(const torch::stable::Tensor& like,
                                             const std::vector<int64_t>& sizes,
                                             torch::headeronly::ScalarType dtype, bool channels_last) {
  return torch::stable::empty(sizes, dtype, std::nullopt, like.device(), std::nullopt,
                              memory_format(channels_last));
}

inline std::vector<int64_t> sizes_of(const torch::stable::Tensor& t) {
  return std::vector<int64_t>(t.sizes().begin(), t.sizes().end());
}

inline View view_of(const torch::stable::Tensor& t, bool channels_last) {
  const int64_t n = t.size(0), c = t.size(1);
  return channels_last ? View{n, t.size(2), t.size(3), c} : View{n * c, t.size(2), t.size(3), 1};
}

// Calls run<T, kPlanar>(), a lambda of two template parameters, with T for `dtype` and kPlanar = not
// channels_last.
template <typename Run>
void dispatch_layout(torch::headeronly::ScalarType dtype, bool channels_last, const char* name,
                     const Run& run) {
  const auto with = [&]<typename T>(T) {
    channels_last ? run.template operator()<T, false>() : run.template operator()<T, true>();
  };
  switch (dtype) {
    case torch::headeronly::ScalarType::Float:
      return with(float{});
    case torch::headeronly::ScalarType::Double:
      return with(double{});
    case torch::headeronly::ScalarType::Half:
      return with(torch::headeronly::Half{});
    case torch::headeronly::ScalarType::BFloat16:
      return with(torch::headeronly::BFloat16{});
    default:
      STD_TORCH_CHECK(false, name, ": dtype must be float32, float64, float16 or bfloat16");
  }
}

// Refuses a list that is no pyramid: (N, C, H_l, W_l) with common N, C, dtype and device, and at least one
// cell.
inline void check_pyramid(const TensorList& levels, const char* name) {
  STD_TORCH_CHECK(!levels.empty(), name, " must hold at least one tensor");
  const auto& first = levels[0];
  for (const auto& t : levels) {
    STD_TORCH_CHECK(t.dim() == 4, name, " must be (N, C, H, W), got a tensor of ", t.dim(), " dimensions");
    STD_TORCH_CHECK(t.size(0) == first.size(0) && t.size(1) == first.size(1), name, " must share N and C");
    STD_TORCH_CHECK(t.size(2) > 0 && t.size(3) > 0, name, " must have at least one cell, got ", t.size(2),
                    "x", t.size(3));
    STD_TORCH_CHECK(t.scalar_type() == first.scalar_type(), name, " must share one dtype");
    STD_TORCH_CHECK(t.device() == first.device(), name, " must be on one device");
  }
}

}  // namespace detectron_libra
