// How the bins cut the axes of pyramid_pooling: plain data, made on the host, handed by value to vector code and GPU.
#pragma once

#include <cstdint>

#include "pyramid_pooling/pyramid_pooling.h"

namespace edgeseg {

struct PoolingAxis {
  int segments;
  std::int32_t edges[2 * kMostBinRows + 1];  // segment s is [edges[s], edges[s + 1])
  // Row (or column) r of all bins' rows, bin after bin, is segments [first[r], last[r]).
  std::uint8_t first[kMostBinRows], last[kMostBinRows];
};

struct PoolingGrid {
  PoolingAxis rows, columns;
  int bin_count, positions;
  std::uint8_t bins[kMostBins];
  std::uint8_t start[kMostBins];  // of a bin's rows among all bins' rows
};

// Of a shape without fault: at most 128 edges, so a byte holds a segment.
PoolingGrid pooling_grid(const PyramidPoolingShape& shape);

}  // namespace edgeseg
