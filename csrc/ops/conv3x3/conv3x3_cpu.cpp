// SPDX-License-Identifier: Apache-2.0
// CPU kernels around the products of a Winograd convolution, in channels_last. A tile, or a block of channels
// of an image, belongs to one thread: no result depends on their number.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/parallel.h"
#include "ops/conv3x3/conv3x3_host.h"
#include "ops/conv3x3/tiles.h"

namespace detectron_libra {
namespace {
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// run<T, kTile>() for float32 or bfloat16 and a tile of 2 or 4.
template <typename Run>
void dispatch(ScalarType dtype, int64_t tile, const Run& run) {
  const auto with = [&]<typename T>(T) {
    tile == 2 ? run.template operator()<T, 2>() : run.template operator()<T, 4>();
  };
  dtype == ScalarType::Float ? with(float{}) : with(torch::headeronly::BFloat16{});
}

Tensor winograd_input_cpu(TensorList levels, int64_t tile) {
  check_tile(tile);
  check_levels(levels, "levels");
  const int64_t channels = levels[0].size(1);
  check_lanes(channels, "levels", kLanes);
  const TensorList dense = in_format(levels, true);
  const auto grids = grids_of(sizes_of_levels(levels), tile);
  const Tensor planes = empty_planes(levels[0], tile, total_tiles(grids), channels, levels[0].scalar_type());
  dispatch(planes.scalar_type(), tile, [&]<typename T, int kTile>() {
    const Planes<T> to = planes_of<T>(planes);
    for (size_t l = 0; l < grids.size(); ++l) {
      const Image<const T> image{dense[l].const_data_ptr<T>(), nullptr, grids[l], channels};
      image_to_planes<Maps<kTile>::input, kTile, 1>(image, to);
    }
  });
  return planes;
}

Tensor winograd_output_backward_cpu(TensorList grads, TensorList outputs, int64_t tile) {
  check_tile(tile);
  check_levels(grads, "grads");
  STD_TORCH_CHECK(outputs.empty() || outputs.size() == grads.size(),
                  "outputs must be empty or one per gradient");
  for (size_t l = 0; l < outputs.size(); ++l) check_same(grads[l], "grads", outputs[l], "outputs");
  const int64_t channels = grads[0].size(1);
  check_lanes(channels, "grads", kLanes);
  const TensorList dense = in_format(grads, true), masks = in_format(outputs, true);
  const auto grids = grids_of(sizes_of_levels(grads), tile);
  const Tensor planes = empty_planes(grads[0], tile, total_tiles(grids), channels, grads[0].scalar_type());
  dispatch(planes.scalar_type(), tile, [&]<typename T, int kTile>() {
    const Planes<T> to = planes_of<T>(planes);
    for (size_t l = 0; l < grids.size(); ++l) {
      const T* mask = masks.empty() ? nullptr : masks[l].const_data_ptr<T>();
      const Image<const T> image{dense[l].const_data_ptr<T>(), mask, grids[l], channels};
      image_to_planes<Maps<kTile>::output_gradient, kTile, 0>(image, to);
    }
  });
  return planes;
}

TensorList winograd_output_cpu(const Tensor& planes, std::optional<Tensor> bias, bool relu,
                               std::vector<int64_t> sizes, int64_t tile) {
  const auto grids = grids_of(sizes, tile);
  check_planes(planes, tile, total_tiles(grids));
  const int64_t channels = planes.size(2);
  check_lanes(channels, "planes", kLanes);
  if (bias.has_value()) {
    check_dim(*bias, "bias", 1);
    check_size(*bias, "bias", 0, channels);
    check_dtype(*bias, "bias", ScalarType::Float, "float32");
    STD_TORCH_CHECK(bias->is_contiguous(), "bias must be contiguous");
  }
  const TensorList out = empty_levels(planes, grids, channels);
  dispatch(planes.scalar_type(), tile, [&]<typename T, int kTile>() {
    const Planes<T> from = planes_of<T>(planes);
    const float* shift = bias.has_value() ? bias->const_data_ptr<float>() : nullptr;
    for (size_t l = 0; l < grids.size(); ++l) {
      const Image<T> image{out[l].template mutable_data_ptr<T>(), nullptr, grids[l], channels};
      planes_to_image<kTile>(from, image, shift, relu);
    }
  });
  return out;
}

TensorList winograd_input_backward_cpu(const Tensor& planes, std::vector<int64_t> sizes, int64_t tile) {
  const auto grids = grids_of(sizes, tile);
  check_planes(planes, tile, total_tiles(grids));
  const int64_t channels = planes.size(2);
  check_lanes(channels, "planes", kLanes);
  const TensorList out = empty_levels(planes, grids, channels);
  dispatch(planes.scalar_type(), tile, [&]<typename T, int kTile>() {
    const Planes<T> from = planes_of<T>(planes);
    for (size_t l = 0; l < grids.size(); ++l) {
      const Image<T> image{out[l].template mutable_data_ptr<T>(), nullptr, grids[l], channels};
      add_planes_to_image<kTile>(from, image);
    }
  });
  return out;
}

Tensor winograd_weight_cpu(const Tensor& weight, int64_t tile, ScalarType dtype) {
  check_tile(tile);
  check_dim(weight, "weight", 4);
  check_dtype(weight, "weight", ScalarType::Float, "float32");
  check_float_or_bfloat16(dtype, "dtype");
  check_size(weight, "weight", 2, 3);
  check_size(weight, "weight", 3, 3);
  check_lanes(weight.size(1), "weight", kLanes);
  const Tensor dense = in_format(weight, true);
  const Tensor planes = empty_planes(weight, tile, weight.size(0), weight.size(1), dtype);
  dispatch(dtype, tile, [&]<typename T, int kTile>() {
    weight_to_planes<kTile>(dense.const_data_ptr<float>(), planes_of<T>(planes));
  });
  return planes;
}

Tensor winograd_weight_backward_cpu(const Tensor& planes, int64_t tile) {
  check_planes(planes, tile, -1);
  check_lanes(planes.size(2), "planes", kLanes);
  const Tensor grad =
      empty_in_format(planes, {planes.size(1), planes.size(2), 3, 3}, ScalarType::Float, true);
  dispatch(planes.scalar_type(), tile, [&]<typename T, int kTile>() {
    planes_to_weight<kTile>(planes_of<T>(planes), grad.template mutable_data_ptr<float>());
  });
  return grad;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("winograd_input", TORCH_BOX(&winograd_input_cpu));
  m.impl("winograd_input_backward", TORCH_BOX(&winograd_input_backward_cpu));
  m.impl("winograd_weight", TORCH_BOX(&winograd_weight_cpu));
  m.impl("winograd_weight_backward", TORCH_BOX(&winograd_weight_backward_cpu));
  m.impl("winograd_output", TORCH_BOX(&winograd_output_cpu));
  m.impl("winograd_output_backward", TORCH_BOX(&winograd_output_backward_cpu));
}
}  // namespace detectron_libra
