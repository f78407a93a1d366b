// From cells to means, one channel a lane. Part of the vector code: included by pyramid_pooling_lanes.cpp only.
#pragma once

#include "common/lanes_element.h"
#include "pyramid_pooling/pyramid_pooling_lanes.h"

namespace edgeseg {
namespace {

// Calls write(position, means) for every position; cell (r, q) is the kLanes floats at
// cells + (r * columns + q) * pitch.
template <typename Write>
EDGESEG_INLINE void means_of_cells(const PoolingGrid& grid, const float* cells, std::ptrdiff_t pitch, Write write) {
  const PoolingAxis &rows = grid.rows, &columns = grid.columns;
  int position = 0;
  for (int b = 0; b < grid.bin_count; ++b) {
    const int begin = grid.start[b], end = begin + grid.bins[b];
    for (int i = begin; i < end; ++i) {
      for (int j = begin; j < end; ++j) {
        Floats sum = {};
        for (int r = rows.first[i]; r < rows.last[i]; ++r) {
          const float* cell = cells + (r * columns.segments + columns.first[j]) * pitch;
          for (int q = columns.first[j]; q < columns.last[j]; ++q, cell += pitch) sum += load<Floats>(cell);
        }
        const float height = static_cast<float>(rows.edges[rows.last[i]] - rows.edges[rows.first[i]]);
        const float width = static_cast<float>(columns.edges[columns.last[j]] - columns.edges[columns.first[j]]);
        write(position++, sum / broadcast(height * width));
      }
    }
  }
}

}  // namespace
}  // namespace edgeseg
