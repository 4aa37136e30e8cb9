// SPDX-License-Identifier: Apache-2.0
#pragma once
// Marks a function that both the host compiler and nvcc compile.
#if defined(__CUDACC__) || defined(__HIPCC__)
#define LIBRA_HD __host__ __device__ __forceinline__
#else
#define LIBRA_HD inline
#endif
