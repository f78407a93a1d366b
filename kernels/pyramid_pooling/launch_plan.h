// How pyramid_pooling's CUDA kernels are launched for a shape: plain host arithmetic, for pyramid_pooling.cu
// alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "pyramid_pooling/grid.h"

namespace edgeseg {
namespace {

constexpr int kMostPlaneThreads = 512;
constexpr int kMostCellWarps = 8;
constexpr int kMeanThreads = 128;

// pool_plane: everything in one launch.
struct PlaneLaunch {
  bool fits;  // else the rows' sums do not fit the shared memory that every GPU gives without asking
  unsigned threads;
  int groups;  // rows read side by side
  std::size_t shared_bytes;
};

inline int most_rows(const PoolingAxis& axis) {
  int most = 0;
  for (int s = 0; s < axis.segments; ++s) most = std::max(most, axis.edges[s + 1] - axis.edges[s]);
  return most;
}

inline std::int64_t cells_of(const PoolingGrid& grid) {
  return static_cast<std::int64_t>(grid.rows.segments) * grid.columns.segments;
}

// pack: columns that one thread loads at once.
inline PlaneLaunch plane_launch(const PyramidPoolingShape& shape, const PoolingGrid& grid, int pack) {
  constexpr std::int64_t kSharedBytes = 48 << 10, kFloat = sizeof(float);
  const auto bytes_with = [&](std::int64_t groups) {
    return static_cast<std::int64_t>(sizeof(PoolingGrid)) +
           kFloat * (grid.rows.segments * groups * shape.W + cells_of(grid));
  };
  if (bytes_with(1) > kSharedBytes) return {false, 0, 0, 0};
  const auto groups_of = [&](std::int64_t threads) { return std::max<std::int64_t>(1, threads / (shape.W / pack)); };
  // One warp a plane suffices where there are thousands of planes; fewer planes take more threads each, while there are
  // rows for them and the sums fit.
  constexpr std::int64_t kEnoughThreads = 128 << 10;
  std::int64_t threads = 32;
  while (threads < kMostPlaneThreads && shape.N * shape.C * threads < kEnoughThreads &&
         groups_of(2 * threads) <= most_rows(grid.rows) && bytes_with(groups_of(2 * threads)) <= kSharedBytes) {
    threads *= 2;
  }
  const std::int64_t groups = bytes_with(groups_of(threads)) <= kSharedBytes ? groups_of(threads) : 1;
  return {true, static_cast<unsigned>(threads), static_cast<int>(groups), static_cast<std::size_t>(bytes_with(groups))};
}

// add_cells_last: a warp takes whole rows of a cell; as many warps as share the most rows evenly.
inline unsigned cell_warps(const PoolingGrid& grid) {
  const int rows = most_rows(grid.rows), turns = (rows + kMostCellWarps - 1) / kMostCellWarps;
  return static_cast<unsigned>((rows + turns - 1) / turns);
}

}  // namespace
}  // namespace edgeseg
