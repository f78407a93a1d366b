// The host side of pyramid_pooling: the grid that the bins make, and tasks for the vector code.
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "common/bilinear.h"
#include "pyramid_pooling/pyramid_pooling.h"
#include "pyramid_pooling/pyramid_pooling_lanes.h"

namespace edgeseg {
namespace {

struct Lanes {
  int count;
  PoolingLast last;
  PoolingFirst first;
};

Lanes lanes_of(InstructionSet set) {
  switch (set == InstructionSet::kAutomatic ? best_instruction_set() : set) {
#if EDGESEG_X86
    case InstructionSet::kAvx2:
      return {8, avx2::pyramid_pooling_last, avx2::pyramid_pooling_first};
    case InstructionSet::kAvx512:
      return {16, avx512::pyramid_pooling_last, avx512::pyramid_pooling_first};
#endif
    case InstructionSet::kLanes16:
      return {16, lanes16::pyramid_pooling_last, lanes16::pyramid_pooling_first};
    default:
      return {4, portable::pyramid_pooling_last, portable::pyramid_pooling_first};
  }
}

// Row i of a bin of b rows is [begin_of, end_of) of n.
std::int32_t begin_of(std::int64_t i, std::int64_t b, std::int64_t n) { return static_cast<std::int32_t>(i * n / b); }
std::int32_t end_of(std::int64_t i, std::int64_t b, std::int64_t n) {
  return static_cast<std::int32_t>(((i + 1) * n + b - 1) / b);
}

PoolingAxis axis_of(const PyramidPoolingShape& shape, std::int64_t n) {
  std::vector<std::int32_t> edges;
  for (std::int64_t k = 0; k < shape.bin_count; ++k) {
    for (std::int32_t i = 0; i < shape.bins[k]; ++i) {
      edges.push_back(begin_of(i, shape.bins[k], n));
      edges.push_back(end_of(i, shape.bins[k], n));
    }
  }
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());

  PoolingAxis axis = {};
  axis.segments = static_cast<int>(edges.size()) - 1;
  std::copy(edges.begin(), edges.end(), axis.edges);
  const auto segment_at = [&](std::int32_t edge) {
    return static_cast<std::uint8_t>(std::lower_bound(edges.begin(), edges.end(), edge) - edges.begin());
  };
  int row = 0;
  for (std::int64_t k = 0; k < shape.bin_count; ++k) {
    for (std::int32_t i = 0; i < shape.bins[k]; ++i, ++row) {
      axis.first[row] = segment_at(begin_of(i, shape.bins[k], n));
      axis.last[row] = segment_at(end_of(i, shape.bins[k], n));
    }
  }
  return axis;
}

std::size_t rounded_up(std::int64_t n, int lanes) { return static_cast<std::size_t>((n + lanes - 1) / lanes * lanes); }

// Uninitialised, aligned as vectors want it for speed.
struct Scratch {
  static constexpr std::size_t kAlignment = 64 / sizeof(float);
  explicit Scratch(std::size_t floats) : memory(new (std::nothrow) float[floats + kAlignment]) {
    if (!memory) return;
    const std::size_t past = reinterpret_cast<std::uintptr_t>(memory.get()) / sizeof(float) % kAlignment;
    begin = memory.get() + (kAlignment - past) % kAlignment;
  }
  std::unique_ptr<float[]> memory;
  float* begin = nullptr;
};

// Channels in one task of channels_last: whole vectors, long runs for the prefetchers, yet tasks for every thread.
std::int64_t channels_per_task(std::int64_t images, std::int64_t channels, int num_threads, int lanes) {
  constexpr std::int64_t kFewest = 64, kMost = 1024;
  const std::int64_t tasks_per_image = std::max<std::int64_t>(1, 2 * num_threads / std::max<std::int64_t>(images, 1));
  const std::int64_t even = num_threads <= 1 ? channels : (channels + tasks_per_image - 1) / tasks_per_image;
  return static_cast<std::int64_t>(rounded_up(std::clamp(even, kFewest, kMost), lanes));
}

}  // namespace

const char* pyramid_pooling_fault(const PyramidPoolingShape& s) {
  if (s.N < 0 || s.C < 0) return "a negative batch or number of channels";
  if (s.H < 1 || s.H > kMaxSide || s.W < 1 || s.W > kMaxSide) return "a height or width not in [1, 2^22]";
  if (s.bin_count < 1 || s.bin_count > kMostBins) return "no bins, or more than 16";
  std::int64_t rows = 0;
  for (std::int64_t k = 0; k < s.bin_count; ++k) {
    if (s.bins[k] < 1 || s.bins[k] > kMostBinRows) return "a bin not in [1, 64]";
    rows += s.bins[k];
  }
  return rows > kMostBinRows ? "bins that add up to more than 64" : nullptr;
}

std::int64_t pyramid_pooling_positions(const PyramidPoolingShape& shape) {
  std::int64_t positions = 0;
  for (std::int64_t k = 0; k < shape.bin_count; ++k) {
    positions += static_cast<std::int64_t>(shape.bins[k]) * shape.bins[k];
  }
  return positions;
}

PoolingGrid pooling_grid(const PyramidPoolingShape& shape) {
  PoolingGrid grid = {};
  grid.rows = axis_of(shape, shape.H);
  grid.columns = axis_of(shape, shape.W);
  grid.bin_count = static_cast<int>(shape.bin_count);
  grid.positions = static_cast<int>(pyramid_pooling_positions(shape));
  int start = 0;
  for (int k = 0; k < grid.bin_count; ++k) {
    grid.bins[k] = static_cast<std::uint8_t>(shape.bins[k]);
    grid.start[k] = static_cast<std::uint8_t>(start);
    start += shape.bins[k];
  }
  return grid;
}

bool pyramid_pooling_cpu(const void* x, void* pooled, Element element, const PyramidPoolingShape& shape,
                         InstructionSet instruction_set, int num_threads, const ParallelFor& parallel_for) {
  if (shape.N == 0 || shape.C == 0) return true;
  try {
    const PoolingGrid grid = pooling_grid(shape);
    const Lanes lanes = lanes_of(instruction_set);
    const std::size_t cells = static_cast<std::size_t>(grid.rows.segments) * grid.columns.segments;
    const std::int64_t bytes = static_cast<std::int64_t>(bytes_of(element)), area = shape.H * shape.W;
    const auto* from = static_cast<const char*>(x);
    auto* to = static_cast<char*>(pooled);
    std::atomic<bool> out_of_memory{false};

    if (shape.channels_last) {
      const std::int64_t per_task = channels_per_task(shape.N, shape.C, num_threads, lanes.count);
      const std::int64_t tasks = (shape.C + per_task - 1) / per_task;
      parallel_for(shape.N * tasks, [&](std::int64_t task) {
        const std::int64_t n = task / tasks, c = task % tasks * per_task, count = std::min(per_task, shape.C - c);
        const Scratch scratch(cells * rounded_up(count, lanes.count));
        if (scratch.begin == nullptr) return out_of_memory.store(true);
        lanes.last(grid, element,
                   {from + (n * area * shape.C + c) * bytes, to + (n * grid.positions * shape.C + c) * bytes,
                    static_cast<std::ptrdiff_t>(shape.C), static_cast<int>(count), scratch.begin});
      });
      return !out_of_memory;
    }

    const std::int64_t planes = shape.N * shape.C, groups = (planes + lanes.count - 1) / lanes.count;
    const std::int64_t per_task = std::clamp<std::int64_t>(groups / (8 * std::max(num_threads, 1)), 1, 64);
    const std::size_t row_sums = grid.rows.segments * rounded_up(shape.W, lanes.count) * lanes.count;
    const std::size_t means = rounded_up(grid.positions, lanes.count) * lanes.count;
    parallel_for((groups + per_task - 1) / per_task, [&](std::int64_t task) {
      const Scratch scratch(row_sums + means + cells * lanes.count);
      if (scratch.begin == nullptr) return out_of_memory.store(true);
      for (std::int64_t group = task * per_task; group < std::min(groups, (task + 1) * per_task); ++group) {
        const std::int64_t plane = group * lanes.count, count = std::min<std::int64_t>(lanes.count, planes - plane);
        lanes.first(grid, element,
                    {from + plane * area * bytes, to + plane * grid.positions * bytes, static_cast<int>(count),
                     scratch.begin, scratch.begin + row_sums + means, scratch.begin + row_sums});
      }
    });
    return !out_of_memory;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace edgeseg
