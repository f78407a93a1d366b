// channels_last: a range of channels of one image. Part of the vector code: included by pyramid_pooling_lanes.cpp only.
#pragma once

#include <type_traits>

#include "pyramid_pooling/lanes_means.h"

namespace edgeseg {
namespace {

// cell[c] += kPixels pixels, whose channels lie `pitch` elements apart.
template <typename E, int kPixels>
EDGESEG_INLINE void add_pixels(float* cell, const typename E::Type* x, std::ptrdiff_t pitch, int count) {
  int c = 0;
  for (; c + kLanes <= count; c += kLanes) {
    Floats sum = load_floats<E>(x + c);
    for (int p = 1; p < kPixels; ++p) sum += load_floats<E>(x + p * pitch + c);
    store(cell + c, load<Floats>(cell + c) + sum);
  }
  if (c == count) return;
  Floats sum = load_floats<E>(x + c, count - c);
  for (int p = 1; p < kPixels; ++p) sum += load_floats<E>(x + p * pitch + c, count - c);
  store(cell + c, load<Floats>(cell + c) + sum);
}

template <typename E>
void pool_last(const PoolingGrid& grid, const PoolingLastTask& task) {
  using T = typename E::Type;
  const PoolingAxis &rows = grid.rows, &columns = grid.columns;
  const std::ptrdiff_t pitch = (task.count + kLanes - 1) / kLanes * kLanes;
  std::memset(task.cells, 0, sizeof(float) * static_cast<std::size_t>(rows.segments * columns.segments * pitch));

  const T* x = static_cast<const T*>(task.x);
  for (int r = 0; r < rows.segments; ++r) {
    for (int y = rows.edges[r]; y < rows.edges[r + 1]; ++y) {
      float* cell = task.cells + r * columns.segments * pitch;
      for (int q = 0; q < columns.segments; ++q, cell += pitch) {
        // A cell is read and written once for as many pixels as are added together.
        int left = columns.edges[q + 1] - columns.edges[q];
        const auto add = [&](auto pixels) {
          for (; left >= pixels; left -= pixels, x += pixels * task.channels) {
            add_pixels<E, pixels>(cell, x, task.channels, task.count);
          }
        };
        add(std::integral_constant<int, 8>());
        add(std::integral_constant<int, 4>());
        add(std::integral_constant<int, 2>());
        add(std::integral_constant<int, 1>());
      }
    }
  }

  T* pooled = static_cast<T*>(task.pooled);
  for (int c = 0; c < task.count; c += kLanes) {
    const int here = task.count - c < kLanes ? task.count - c : kLanes;
    means_of_cells(grid, task.cells + c, pitch, [&](int position, Floats means) {
      T* to = pooled + position * task.channels + c;
      if (here == kLanes) {
        store_floats<E>(to, means);
      } else {
        store_floats<E>(to, means, here);
      }
    });
  }
}

}  // namespace
}  // namespace edgeseg
