// SPDX-License-Identifier: Apache-2.0
#pragma once
// One loop, compiled for several instruction sets, the best one chosen when the program runs: wheels must run
// on any x86-64, and most processors can do more than that. Wider registers change no result: contraction
// of a * b + c is off, and sums have a fixed number of lanes of their own.
#include <cstdlib>
#include <cstring>
#include <type_traits>

namespace detectron_libra {

#if defined(__GNUC__)
#define LIBRA_INLINE __attribute__((always_inline)) inline
#else
#define LIBRA_INLINE inline
#endif

#if defined(__GNUC__) && defined(__x86_64__) && !defined(LIBRA_NO_SIMD_CLONES)
#define LIBRA_SIMD_CLONES 1

// `flatten` inlines all that the loop calls, so that it is compiled for the instructions named here.
template <typename F>
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c,prefer-vector-width=512"), flatten,
               noinline)) void
run_avx512(const F& f) {
  f();
}

template <typename F>
__attribute__((target("avx2,f16c"), flatten, noinline)) void run_avx2(const F& f) {
  f();
}
#endif

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

// The widest that the processor has; LIBRA_SIMD=baseline or avx2 takes a narrower one, for tests.
inline InstructionSet instruction_set() {
#if defined(LIBRA_SIMD_CLONES)
  static const InstructionSet found = [] {
    const char* limit = std::getenv("LIBRA_SIMD");
    const auto is = [&](const char* name) { return limit != nullptr && std::strcmp(limit, name) == 0; };
    __builtin_cpu_init();
    if (is("baseline") || !__builtin_cpu_supports("avx2")) return InstructionSet::kBaseline;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return wide && !is("avx2") ? InstructionSet::kAvx512 : InstructionSet::kAvx2;
  }();
  return found;
#else
  return InstructionSet::kBaseline;
#endif
}

// Runs f(), a loop over plain arrays, with the widest registers there are. What f calls must be visible to
// the compiler here; a call that it cannot inline stays a call.
template <typename F>
void vectorized(const F& f) {
#if defined(LIBRA_SIMD_CLONES)
  switch (instruction_set()) {
    case InstructionSet::kAvx512:
      return run_avx512(f);
    case InstructionSet::kAvx2:
      return run_avx2(f);
    case InstructionSet::kBaseline:
      break;
  }
#endif
  f();
}

}  // namespace detectron_libra
