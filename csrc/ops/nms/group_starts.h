// SPDX-License-Identifier: Apache-2.0
#pragma once
// CPU: where the groups begin, among boxes whose groups lie one after the other.
#include <cstdint>
#include <vector>

namespace detectron_libra {

// Positions in `order`; the last one is n.
inline std::vector<int64_t> group_starts(const int64_t* groups, const int64_t* order, int64_t n) {
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < n; ++i) {
    if (i == 0 || groups[order[i]] != groups[order[i - 1]]) starts.push_back(i);
  }
  starts.push_back(n);
  return starts;
}

}  // namespace detectron_libra
