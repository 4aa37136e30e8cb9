// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: from images to planes of transformed tiles and back, sixteen channels at a time.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include <torch/csrc/stable/tensor.h>

#include "common/parallel.h"
#include "ops/conv3x3/conv3x3_host.h"
#include "ops/conv3x3/lanes.h"
#include "ops/conv3x3/winograd.h"

namespace detectron_libra {

// Numbers that a thread moves, below which it costs more than it saves: more for a machine that others use
// too, where each start of the threads may wait for a core.
constexpr int64_t kMovedPerThread = 65536;

// Tiles per thread, at so many numbers each.
inline int64_t tile_grain(int64_t numbers) { return std::max<int64_t>(1, kMovedPerThread / numbers); }

// (P, rows, channels), contiguous.
template <typename T>
struct Planes {
  T* data;
  int64_t rows, channels;

  T* at(int64_t plane, int64_t row) const { return data + (plane * rows + row) * channels; }
};

template <typename T>
Planes<T> planes_of(const torch::stable::Tensor& t) {
  return {t.mutable_data_ptr<T>(), t.size(1), t.size(2)};
}

// A level in channels_last; where `mask` is given, its values count where the mask is above 0.
template <typename T>
struct Image {
  T* data;
  const T* mask;
  TileGrid grid;
  int64_t channels;

  bool has(int64_t y, int64_t x) const { return y >= 0 && y < grid.height && x >= 0 && x < grid.width; }
  int64_t at(int64_t n, int64_t y, int64_t x) const {
    return ((n * grid.height + y) * grid.width + x) * channels;
  }
};

struct Place {
  int64_t n, y, x;
};

// Image and first output pixel of a tile.
inline Place place_of(const TileGrid& grid, int64_t tile) {
  const int64_t cols = grid.cols(), per_image = grid.rows() * cols;
  return {tile / per_image, tile % per_image / cols * grid.tile, tile % cols * grid.tile};
}

// planes = M X M' of the pixels around each tile, 0 outside the image: X begins kBefore pixels before the
// tile.
template <const auto& kMatrix, int kTile, int kBefore, typename T>
void image_to_planes(const Image<const T>& image, const Planes<T>& planes) {
  constexpr int kIn = kMatrix.cols, kOut = kMatrix.rows;
  const int64_t grain = tile_grain(kOut * kOut * image.channels);
  parallel_ranges(image.grid.count(), grain, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t t = begin; t < end; ++t) {
        const Place at = place_of(image.grid, t);
        for (int64_t c = 0; c < image.channels; c += kLanes) {
          Lanes x[kIn * kIn], out[kOut * kOut];
          for (int i = 0; i < kIn * kIn; ++i) {
            const int64_t py = at.y - kBefore + i / kIn, px = at.x - kBefore + i % kIn;
            x[i] = Lanes{};
            if (!image.has(py, px)) continue;
            const int64_t from = image.at(at.n, py, px) + c;
            load(x[i], image.data + from);
            if (image.mask == nullptr) continue;
            Lanes passed;
            load(passed, image.mask + from);
            x[i] = passed > Lanes{} ? x[i] : Lanes{};
          }
          transform<kMatrix>(x, out);
          for (int p = 0; p < kOut * kOut; ++p) store(planes.at(p, image.grid.first + t) + c, out[p]);
        }
      }
    });
  });
}

template <typename T>
LIBRA_INLINE void load_tile(const Planes<T>& planes, int count, int64_t row, int64_t c, Lanes* x) {
  for (int p = 0; p < count; ++p) load(x[p], planes.at(p, row) + c);
}

// Outputs of each tile, plus the bias, at least 0 with relu.
template <int kTile, typename T>
void planes_to_image(const Planes<T>& planes, const Image<T>& image, const float* bias, bool relu) {
  constexpr auto& kMatrix = Maps<kTile>::output;
  parallel_ranges(image.grid.count(), tile_grain(kMatrix.cols * kMatrix.cols * image.channels),
                  [&](int64_t begin, int64_t end) {
                    vectorized([&] {
                      for (int64_t t = begin; t < end; ++t) {
                        const Place at = place_of(image.grid, t);
                        for (int64_t c = 0; c < image.channels; c += kLanes) {
                          Lanes x[kMatrix.cols * kMatrix.cols], out[kTile * kTile], shift{};
                          load_tile(planes, kMatrix.cols * kMatrix.cols, image.grid.first + t, c, x);
                          transform<Maps<kTile>::output>(x, out);
                          if (bias != nullptr) load(shift, bias + c);
                          for (int i = 0; i < kTile * kTile; ++i) {
                            const int64_t y = at.y + i / kTile, x0 = at.x + i % kTile;
                            if (!image.has(y, x0)) continue;
                            Lanes value = out[i] + shift;
                            // NaN is not below 0 and stays
                            if (relu) value = value < Lanes{} ? Lanes{} : value;
                            store(image.data + image.at(at.n, y, x0) + c, value);
                          }
                        }
                      }
                    });
                  });
}

// Channels of an image whose sums one thread holds at a time: whole cache lines of the planes, and a part of
// its cache.
constexpr int64_t kSummedChannels = 4 * kLanes;

// Rows of pixels, one before and one after those of a row of tiles, with one column before and one after.
struct Sums {
  int64_t wide, channels;
  std::vector<float> data;

  float* at(int64_t row, int64_t col, int64_t c) { return data.data() + (row * wide + col) * channels + c; }
};

template <int kTile, typename T>
LIBRA_INLINE void add_tile(const Planes<T>& planes, int64_t tile, int64_t first, int64_t col, Sums& sums) {
  constexpr int kSide = kTile + 2;
  for (int64_t c = 0; c < sums.channels; c += kLanes) {
    Lanes x[kSide * kSide], out[kSide * kSide];
    load_tile(planes, kSide * kSide, tile, first + c, x);
    transform<Maps<kTile>::input_gradient>(x, out);
    for (int i = 0; i < kSide * kSide; ++i) {
      float* to = sums.at(i / kSide, col * kTile + i % kSide, c);
      Lanes so_far;
      load(so_far, to);
      store(to, so_far + out[i]);
    }
  }
}

// The gradient of image_to_planes: windows overlap by two pixels, and each pixel is the sum of what up to
// four of them say, taken tile by tile in float32.
template <int kTile, typename T>
void add_planes_to_image(const Planes<T>& planes, const Image<T>& image) {
  const TileGrid& grid = image.grid;
  const int64_t parts = (image.channels + kSummedChannels - 1) / kSummedChannels;
  const int64_t wide = grid.cols() * kTile + 2;
  const int64_t each = (kTile + 2) * (kTile + 2) * grid.rows() * grid.cols() * kSummedChannels;
  parallel_ranges(grid.images * parts, tile_grain(each), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      const int64_t n = job / parts, first = job % parts * kSummedChannels;
      const int64_t channels = std::min(kSummedChannels, image.channels - first);
      Sums sums{wide, channels, std::vector<float>((kTile + 2) * wide * channels)};
      vectorized([&] {
        for (int64_t row = 0; row < grid.rows(); ++row) {
          const int64_t tile = grid.first + (n * grid.rows() + row) * grid.cols();
          for (int64_t col = 0; col < grid.cols(); ++col)
            add_tile<kTile>(planes, tile + col, first, col, sums);
          // The first kTile rows of sums are complete; the last row of tiles completes what is left of the
          // image.
          const int64_t above = row * kTile - 1;
          const int64_t below = row + 1 == grid.rows() ? grid.height : above + kTile;
          for (int64_t y = std::max<int64_t>(above, 0); y < below; ++y)
            for (int64_t x = 0; x < grid.width; ++x)
              for (int64_t c = 0; c < channels; c += kLanes) {
                Lanes value;
                load(value, sums.at(y - above, x + 1, c));
                store(image.data + image.at(n, y, x) + first + c, value);
              }
          std::memmove(sums.at(0, 0, 0), sums.at(kTile, 0, 0), 2 * wide * channels * sizeof(float));
          std::memset(sums.at(2, 0, 0), 0, kTile * wide * channels * sizeof(float));
        }
      });
    }
  });
}

// weight: (K, 3, 3, C); planes (P, K, C).
template <int kTile, typename T>
void weight_to_planes(const float* weight, const Planes<T>& planes) {
  constexpr auto& kMatrix = Maps<kTile>::weight;
  parallel_ranges(planes.rows, tile_grain(kMatrix.rows * kMatrix.rows * planes.channels),
                  [&](int64_t begin, int64_t end) {
                    vectorized([&] {
                      for (int64_t k = begin; k < end; ++k)
                        for (int64_t c = 0; c < planes.channels; c += kLanes) {
                          Lanes x[9], out[kMatrix.rows * kMatrix.rows];
                          for (int i = 0; i < 9; ++i) load(x[i], weight + (k * 9 + i) * planes.channels + c);
                          transform<Maps<kTile>::weight>(x, out);
                          for (int p = 0; p < kMatrix.rows * kMatrix.rows; ++p)
                            store(planes.at(p, k) + c, out[p]);
                        }
                    });
                  });
}

template <int kTile, typename T>
void planes_to_weight(const Planes<T>& planes, float* weight) {
  constexpr int kSide = kTile + 2;
  parallel_ranges(planes.rows, tile_grain(kSide * kSide * planes.channels), [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t k = begin; k < end; ++k)
        for (int64_t c = 0; c < planes.channels; c += kLanes) {
          Lanes x[kSide * kSide], out[9];
          load_tile(planes, kSide * kSide, k, c, x);
          transform<Maps<kTile>::weight_gradient>(x, out);
          for (int i = 0; i < 9; ++i) store(weight + (k * 9 + i) * planes.channels + c, out[i]);
        }
    });
  });
}

}  // namespace detectron_libra
