// SPDX-License-Identifier: Apache-2.0
#pragma once
// Winograd's minimal filtering F(m x m, 3 x 3): m x m outputs of a 3 x 3 convolution from (m + 2) x (m + 2)
// inputs with (m + 2)^2 products instead of 9 m^2, Y = A' [(G g G') * (B' d B)] A. Matrices: Lavin and Gray,
// arXiv:1509.09308, section 4 (points 0, 1, -1 and for m = 4 also 2, -2). All that surrounds the products is
// linear, so the gradients are the same sums with the matrices transposed.
#include <cstdint>

#include "common/host_device.h"

namespace detectron_libra {

template <int kRows, int kCols>
struct Matrix {
  static constexpr int rows = kRows, cols = kCols;
  float at[kRows][kCols];

  constexpr Matrix<kCols, kRows> transposed() const {
    Matrix<kCols, kRows> out{};
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kCols; ++c) out.at[c][r] = at[r][c];
    return out;
  }
};

// input is B', weight G, output A' of the paper.
template <int kTile>
struct Winograd;

template <>
struct Winograd<2> {
  static constexpr Matrix<4, 4> input = {{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}};
  static constexpr Matrix<4, 3> weight = {{{1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}}};
  static constexpr Matrix<2, 4> output = {{{1, 1, 1, 0}, {0, 1, -1, -1}}};
};

template <>
struct Winograd<4> {
  static constexpr Matrix<6, 6> input = {{{4, 0, -5, 0, 1, 0},
                                          {0, -4, -4, 1, 1, 0},
                                          {0, 4, -4, -1, 1, 0},
                                          {0, -2, -1, 2, 1, 0},
                                          {0, 2, -1, -2, 1, 0},
                                          {0, 4, 0, -5, 0, 1}}};
  static constexpr Matrix<6, 3> weight = {{{1.f / 4, 0, 0},
                                           {-1.f / 6, -1.f / 6, -1.f / 6},
                                           {-1.f / 6, 1.f / 6, -1.f / 6},
                                           {1.f / 24, 1.f / 12, 1.f / 6},
                                           {1.f / 24, -1.f / 12, 1.f / 6},
                                           {0, 0, 1}}};
  static constexpr Matrix<4, 6> output = {
      {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}}};
};

// The three linear maps of a tile and what their gradients need, each as one matrix M in X -> M X M'.
template <int kTile>
struct Maps {
  using W = Winograd<kTile>;
  static constexpr auto input = W::input, input_gradient = W::input.transposed();
  static constexpr auto weight = W::weight, weight_gradient = W::weight.transposed();
  static constexpr auto output = W::output, output_gradient = W::output.transposed();
};

// One entry of M x, the entries of x being `stride` apart. Products with 0 are left out.
template <const auto& kMatrix, int kRow, typename V>
LIBRA_HD void combine(const V* x, int stride, V& sum) {
  bool begun = false;
#pragma GCC unroll 8
  for (int k = 0; k < kMatrix.cols; ++k) {
    constexpr auto& row = kMatrix.at[kRow];
    if (row[k] == 0) continue;
    const V term = row[k] == 1 ? x[k * stride] : x[k * stride] * row[k];
    sum = begun ? sum + term : term;
    begun = true;
  }
}

// out = M x: column by column; with kTurned, out = x M', row by row. Both are row-major.
template <const auto& kMatrix, bool kTurned, int kOther, int kRow = 0, typename V>
LIBRA_HD void multiply(const V* x, V* out) {
  if constexpr (kRow < kMatrix.rows) {
#pragma GCC unroll 8
    for (int i = 0; i < kOther; ++i) {
      if constexpr (kTurned)
        combine<kMatrix, kRow>(x + i * kMatrix.cols, 1, out[i * kMatrix.rows + kRow]);
      else
        combine<kMatrix, kRow>(x + i, kOther, out[kRow * kOther + i]);
    }
    multiply<kMatrix, kTurned, kOther, kRow + 1>(x, out);
  }
}

// out (rows, rows) = M x M' of x (cols, cols).
template <const auto& kMatrix, typename V>
LIBRA_HD void transform(const V* x, V* out) {
  V half[kMatrix.rows * kMatrix.cols];
  multiply<kMatrix, false, kMatrix.cols>(x, half);
  multiply<kMatrix, true, kMatrix.rows>(half, out);
}

}  // namespace detectron_libra
