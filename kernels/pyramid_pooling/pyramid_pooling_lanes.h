// What pyramid_pooling_cpu.cpp hands to the vector code, which is compiled once per instruction set. Plain data only,
// as in upsample_argmax_lanes.h.
#pragma once

#include <cstddef>

#include "pyramid_pooling/grid.h"

namespace edgeseg {

// channels_last: x and pooled point at the first of `count` channels of one image with `channels` of them.
struct PoolingLastTask {
  const void* x;
  void* pooled;
  std::ptrdiff_t channels;
  int count;
  float* cells;  // [cells][count rounded up to lanes]
};

// channels_first: `count` planes that lie one after the other, and so do their means.
struct PoolingFirstTask {
  const void* x;
  void* pooled;
  int count;
  float* row_sums;  // [row segments][lanes][width rounded up to lanes]
  float* cells;     // [cells][lanes]
  float* means;     // [positions rounded up to lanes][lanes]
};

using PoolingLast = void (*)(const PoolingGrid& grid, Element element, const PoolingLastTask& task);
using PoolingFirst = void (*)(const PoolingGrid& grid, Element element, const PoolingFirstTask& task);

#define EDGESEG_DECLARE_LANES(name)                                                                   \
  namespace name {                                                                                    \
  void pyramid_pooling_last(const PoolingGrid& grid, Element element, const PoolingLastTask& task);   \
  void pyramid_pooling_first(const PoolingGrid& grid, Element element, const PoolingFirstTask& task); \
  }
EDGESEG_DECLARE_LANES(portable)
EDGESEG_DECLARE_LANES(lanes16)
EDGESEG_DECLARE_LANES(avx2)
EDGESEG_DECLARE_LANES(avx512)
#undef EDGESEG_DECLARE_LANES

}  // namespace edgeseg
