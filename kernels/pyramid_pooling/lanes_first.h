// channels_first: up to kLanes planes. Part of the vector code: included by pyramid_pooling_lanes.cpp only.
#pragma once

#include <utility>

#include "pyramid_pooling/lanes_means.h"

namespace edgeseg {
namespace {

// Lanes of two vectors, numbered as in one of twice the length.
template <int... kFrom>
EDGESEG_INLINE Floats lanes_of_two(Floats a, Floats b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kFrom...);
#else
  return __builtin_shuffle(a, b, Ints{kFrom...});
#endif
}

template <int kStep, int... kLane>
EDGESEG_INLINE void exchange_blocks(Floats& a, Floats& b, std::integer_sequence<int, kLane...>) {
  const Floats upper = lanes_of_two<((kLane & kStep) ? kLanes + kLane - kStep : kLane)...>(a, b);
  b = lanes_of_two<((kLane & kStep) ? kLanes + kLane : kLane + kStep)...>(a, b);
  a = upper;
}

// rows[i][j] becomes rows[j][i]: off-diagonal blocks of 1, 2, 4, ... lanes change places.
template <int kStep = 1>
EDGESEG_INLINE void transpose(Floats* rows) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(i & kStep)) exchange_blocks<kStep>(rows[i], rows[i + kStep], std::make_integer_sequence<int, kLanes>());
  }
  if constexpr (2 * kStep < kLanes) transpose<2 * kStep>(rows);
}

// kVectors vectors of each row; the last of them begins at column `last`, which may lie within the one before.
template <typename E, int kVectors>
EDGESEG_INLINE void add_strip(const typename E::Type* x, int width, int rows, int last, float* sums) {
  const auto column = [last](int v) { return v + 1 < kVectors ? v * kLanes : last; };
  Floats sum[kVectors];
  for (int v = 0; v < kVectors; ++v) sum[v] = load_floats<E>(x + column(v));
  for (int y = 1; y < rows; ++y) {
    x += width;
    for (int v = 0; v < kVectors; ++v) sum[v] += load_floats<E>(x + column(v));
  }
  for (int v = 0; v < kVectors; ++v) store(sums + column(v), sum[v]);
}

template <typename E, int kVectors>
EDGESEG_INLINE void add_last_strip(int vectors, const typename E::Type* x, int width, int rows, int last, float* sums) {
  if (vectors == kVectors) return add_strip<E, kVectors>(x, width, rows, last, sums);
  if constexpr (kVectors > 1) add_last_strip<E, kVectors - 1>(vectors, x, width, rows, last, sums);
}

// sums[c] = column c of `rows` rows added up.
template <typename E>
EDGESEG_INLINE void add_rows(const typename E::Type* x, int width, int rows, float* sums) {
  if (width < kLanes) {
    Floats sum = {};
    for (int y = 0; y < rows; ++y) sum += load_floats<E>(x + y * width, width);
    return store(sums, sum);
  }
  constexpr int kVectors = 8;  // sums in registers: rows of up to 64 columns in one go with AVX2
  int c = 0;
  for (; c + kVectors * kLanes < width; c += kVectors * kLanes) {
    add_strip<E, kVectors>(x + c, width, rows, (kVectors - 1) * kLanes, sums + c);
  }
  const int left = width - c;
  add_last_strip<E, kVectors>((left + kLanes - 1) / kLanes, x + c, width, rows, left - kLanes, sums + c);
}

template <typename E>
void pool_first(const PoolingGrid& grid, const PoolingFirstTask& task) {
  using T = typename E::Type;
  const PoolingAxis &rows = grid.rows, &columns = grid.columns;
  const int width = columns.edges[columns.segments], padded = (width + kLanes - 1) / kLanes * kLanes;
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(rows.edges[rows.segments]) * width;
  const T* x = static_cast<const T*>(task.x);

  // Planes are read from end to end, one after the other: what prefetchers follow.
  for (int lane = 0; lane < kLanes; ++lane) {  // lanes without a plane of their own repeat the last
    const T* from = x + (lane < task.count ? lane : task.count - 1) * plane;
    for (int r = 0; r < rows.segments; ++r) {
      const int count = rows.edges[r + 1] - rows.edges[r];
      add_rows<E>(from, width, count, task.row_sums + (r * kLanes + lane) * padded);
      from += static_cast<std::ptrdiff_t>(count) * width;
    }
  }
  float* cell = task.cells;
  for (int r = 0; r < rows.segments; ++r) {
    const float* const sums = task.row_sums + r * kLanes * padded;
    Floats sum = {};
    int q = 0;
    for (int c = 0; c < width; c += kLanes) {
      Floats block[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) block[lane] = load<Floats>(sums + lane * padded + c);
      transpose(block);
      for (int i = 0; i < kLanes && c + i < width; ++i) {
        sum += block[i];
        if (c + i + 1 < columns.edges[q + 1]) continue;
        store(cell, sum);
        cell += kLanes;
        sum = Floats{};
        ++q;
      }
    }
  }

  means_of_cells(grid, task.cells, kLanes,
                 [&](int position, Floats means) { store(task.means + position * kLanes, means); });
  T* pooled = static_cast<T*>(task.pooled);
  for (int first = 0; first < grid.positions; first += kLanes) {
    const int here = grid.positions - first < kLanes ? grid.positions - first : kLanes;
    Floats block[kLanes];
    for (int i = 0; i < kLanes; ++i) block[i] = load<Floats>(task.means + (first + i) * kLanes);
    transpose(block);
    for (int p = 0; p < task.count; ++p) store_floats<E>(pooled + p * grid.positions + first, block[p], here);
  }
}

}  // namespace
}  // namespace edgeseg
