// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks and allocation of the Winograd operators.
#include <optional>
#include <vector>

#include "common/allocate.h"
#include "common/checks.h"
#include "common/layout.h"

namespace detectron_libra {

// (N, H, W) of a level and where its tiles begin among those of all levels.
struct TileGrid {
  int64_t images, height, width, tile, first;

  int64_t rows() const { return (height + tile - 1) / tile; }
  int64_t cols() const { return (width + tile - 1) / tile; }
  int64_t count() const { return images * rows() * cols(); }
};

inline int64_t total_tiles(const std::vector<TileGrid>& grids) {
  return grids.empty() ? 0 : grids.back().first + grids.back().count();
}

inline std::vector<TileGrid> grids_of(const std::vector<int64_t>& sizes, int64_t tile) {
  STD_TORCH_CHECK(sizes.size() % 3 == 0, "sizes must hold N, H and W of each level");
  std::vector<TileGrid> grids;
  for (size_t i = 0; i < sizes.size(); i += 3)
    grids.push_back({sizes[i], sizes[i + 1], sizes[i + 2], tile, total_tiles(grids)});
  return grids;
}

inline std::vector<int64_t> sizes_of_levels(const TensorList& levels) {
  std::vector<int64_t> sizes;
  for (const auto& t : levels) sizes.insert(sizes.end(), {t.size(0), t.size(2), t.size(3)});
  return sizes;
}

inline void check_tile(int64_t tile) {
  STD_TORCH_CHECK(tile == 2 || tile == 4, "tile must be 2 or 4, got ", tile);
}

inline void check_lanes(int64_t channels, const char* name, int lanes) {
  STD_TORCH_CHECK(channels % lanes == 0, name, " must have a multiple of ", lanes, " channels, got ",
                  channels);
}

inline void check_float_or_bfloat16(torch::headeronly::ScalarType t, const char* name) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(t == ScalarType::Float || t == ScalarType::BFloat16, name, " must be float32 or bfloat16");
}

// (N, C, H, W) of common C, dtype and device.
inline void check_levels(const TensorList& levels, const char* name) {
  STD_TORCH_CHECK(!levels.empty(), name, " must hold at least one tensor");
  for (const auto& t : levels) {
    check_dim(t, name, 4);
    check_float_or_bfloat16(t.scalar_type(), name);
    STD_TORCH_CHECK(t.size(1) == levels[0].size(1), name, " must share C");
    STD_TORCH_CHECK(t.scalar_type() == levels[0].scalar_type(), name, " must share one dtype");
    STD_TORCH_CHECK(t.device() == levels[0].device(), name, " must be on one device");
  }
}

inline void check_planes(const torch::stable::Tensor& planes, int64_t tile, int64_t tiles) {
  check_tile(tile);
  check_dim(planes, "planes", 3);
  check_float_or_bfloat16(planes.scalar_type(), "planes");
  check_size(planes, "planes", 0, (tile + 2) * (tile + 2));
  if (tiles >= 0) check_size(planes, "planes", 1, tiles);
  STD_TORCH_CHECK(planes.is_contiguous(), "planes must be contiguous");
}

inline torch::stable::Tensor empty_planes(const torch::stable::Tensor& like, int64_t tile, int64_t rows,
                                          int64_t channels, torch::headeronly::ScalarType dtype) {
  const int64_t sizes[] = {(tile + 2) * (tile + 2), rows, channels};
  const int64_t strides[] = {rows * channels, channels, 1};
  return allocate(like, 3, sizes, strides, dtype);
}

inline TensorList empty_levels(const torch::stable::Tensor& like, const std::vector<TileGrid>& grids,
                               int64_t channels) {
  TensorList out;
  for (const auto& g : grids)
    out.push_back(empty_in_format(like, {g.images, channels, g.height, g.width}, like.scalar_type(), true));
  return out;
}

}  // namespace detectron_libra
