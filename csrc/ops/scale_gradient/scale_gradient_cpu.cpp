// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "common/half.h"
#include "common/parallel.h"
#include "ops/scale_gradient/scale_gradient_host.h"

namespace detectron_libra {
namespace {
using torch::stable::Tensor;

template <typename T>
void scale(Tensor& gradient, accumulate_t<T> factor) {
  T* data = gradient.mutable_data_ptr<T>();
  parallel_ranges(gradient.numel(), kGrain, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t i = begin; i < end; ++i) write(data, i, read(data, i) * factor);
    });
  });
}

void scale_gradient_cpu(TensorList gradients, const Tensor& factor) {
  check_gradients(gradients, factor);
  for (Tensor& gradient : gradients) {
    LIBRA_DISPATCH_FLOATING(gradient.scalar_type(), "scale_gradient_", [&] {
      using C = accumulate_t<scalar_t>;
      const C number = *factor.const_data_ptr<C>();
      if (number != C(1)) scale<scalar_t>(gradient, number);
    });
  }
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detectron_libra, CPU, m) {
  m.impl("scale_gradient_", TORCH_BOX(&scale_gradient_cpu));
}
}  // namespace detectron_libra
