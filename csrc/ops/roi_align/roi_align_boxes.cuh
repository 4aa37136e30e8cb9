// SPDX-License-Identifier: Apache-2.0
#pragma once
// CUDA: the boxes of one call, as both kernels of roi_align see them.
#include "common/launch.cuh"
#include "ops/roi_align/roi_align_host.h"

namespace detectron_libra {

constexpr int kMaxLevels = 16;  // levels travel to the kernel by value

struct Boxes {
  const float* box;
  const int64_t* image;
  int64_t size, images, channels;
  RoiAlignOptions options;
  float scales[kMaxLevels];
  int levels;

  __device__ bool has_image(int64_t r) const { return image[r] >= 0 && image[r] < images; }
  __device__ Roi roi(int64_t r) const { return roi_of(box + 4 * r, options, scales, levels); }
};

inline Boxes boxes_of(const RoiBoxes& rois, int64_t images, int64_t channels) {
  constexpr int64_t kMaxSide = 128, kMax = 0x7fffffff;
  const int64_t side = rois.options.output_size;
  const size_t levels = rois.scales.size();
  STD_TORCH_CHECK(levels <= size_t(kMaxLevels), "levels: at most ", kMaxLevels, " on CUDA, got ", levels);
  STD_TORCH_CHECK(side <= kMaxSide, "output_size: at most ", kMaxSide, " on CUDA, got ", side);
  STD_TORCH_CHECK(channels * side * side <= kMax && rois.size() <= kMax && images * int64_t(levels) <= kMax,
                  "roi_align: more than 2^31 numbers per box, boxes or images on CUDA; split the call");
  Boxes out{rois.boxes.const_data_ptr<float>(),
            rois.image_index.const_data_ptr<int64_t>(),
            rois.size(),
            images,
            channels,
            rois.options,
            {},
            int(levels)};
  for (size_t i = 0; i < levels; ++i) out.scales[i] = rois.scales[i];
  return out;
}

}  // namespace detectron_libra
