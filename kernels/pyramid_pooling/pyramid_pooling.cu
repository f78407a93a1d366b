// pyramid_pooling on CUDA. The specification is pyramid_pooling.h.
#include "common/cuda.h"
#include "pyramid_pooling/grid.h"
#include "pyramid_pooling/launch_plan.h"

namespace edgeseg {
namespace {

// kCount elements, loaded by one instruction; the address is aligned to all of them.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};

template <typename T, int kCount>
__device__ __forceinline__ void add_pack(float (&sum)[kCount], const T* __restrict__ from) {
  const auto pack = *reinterpret_cast<const Pack<T, kCount>*>(from);
  for (int i = 0; i < kCount; ++i) sum[i] += static_cast<float>(pack.at[i]);
}

// Row and column of a position among all bins' rows and columns.
struct Place {
  int row, column;
};

__device__ __forceinline__ Place place_of(const PoolingGrid& grid, int position) {
  int b = 0;
  for (; position >= grid.bins[b] * grid.bins[b]; ++b) position -= grid.bins[b] * grid.bins[b];
  return {grid.start[b] + position / grid.bins[b], grid.start[b] + position % grid.bins[b]};
}

// The mean at a position; cell (r, q) is cells[(r * columns + q) * pitch].
__device__ __forceinline__ float mean_at(const PoolingGrid& grid, int position, const float* cells, int64_t pitch) {
  const Place at = place_of(grid, position);
  const PoolingAxis &rows = grid.rows, &columns = grid.columns;
  const int top = rows.first[at.row], bottom = rows.last[at.row];
  const int left = columns.first[at.column], right = columns.last[at.column];
  float sum = 0.0f;
  for (int r = top; r < bottom; ++r) {
    for (int q = left; q < right; ++q) sum += cells[(r * columns.segments + q) * pitch];
  }
  return sum / (static_cast<float>(rows.edges[bottom] - rows.edges[top]) *
                static_cast<float>(columns.edges[right] - columns.edges[left]));
}

// The grid in shared memory: threads look up different places of it, which the constant bank would serve in turn.
__device__ __forceinline__ const PoolingGrid& shared_copy(const PoolingGrid& grid, PoolingGrid* shared) {
  static_assert(sizeof(PoolingGrid) % sizeof(int) == 0, "copied in words");
  const int words = sizeof(PoolingGrid) / sizeof(int), threads = blockDim.x * blockDim.y;
  for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < words; i += threads) {
    reinterpret_cast<int*>(shared)[i] = reinterpret_cast<const int*>(&grid)[i];
  }
  __syncthreads();
  return *shared;
}

// channels_first: one block, one plane. The block's threads stand side by side along a row, kPack columns each, in as
// many groups as fit; group g takes rows g, g + groups, ... of every segment. Nothing waits until the plane is read.
template <typename T, int kPack>
__global__ void __launch_bounds__(kMostPlaneThreads)
    pool_plane(const T* __restrict__ x, T* __restrict__ pooled, int groups, const __grid_constant__ PoolingGrid given) {
  PoolingGrid* const memory = dynamic_shared<PoolingGrid>();
  const PoolingGrid& grid = shared_copy(given, memory);
  const PoolingAxis &rows = grid.rows, &columns = grid.columns;
  const int width = columns.edges[columns.segments], packs = width / kPack;
  float* const sums = reinterpret_cast<float*>(memory + 1);    // [row segment][group][column]
  float* const cells = sums + rows.segments * groups * width;  // [row segment][column segment]

  const int64_t plane = blockIdx.x;
  const T* const from = x + plane * rows.edges[rows.segments] * width;
  const int group = threadIdx.x / packs;  // 0 where a row has more packs than the block threads
  if (group < groups) {
    for (int pack = threadIdx.x - group * packs; pack < packs; pack += blockDim.x) {
      for (int r = 0; r < rows.segments; ++r) {
        float sum[kPack] = {};
#pragma unroll 4
        for (int y = rows.edges[r] + group; y < rows.edges[r + 1]; y += groups) {
          add_pack<T>(sum, from + static_cast<int64_t>(y) * width + pack * kPack);
        }
        for (int i = 0; i < kPack; ++i) sums[(r * groups + group) * width + pack * kPack + i] = sum[i];
      }
    }
  }
  __syncthreads();

  for (int cell = threadIdx.x; cell < rows.segments * columns.segments; cell += blockDim.x) {
    const int r = cell / columns.segments, q = cell % columns.segments;
    float sum = 0.0f;
    for (int g = 0; g < groups; ++g) {
      const float* const row = sums + (r * groups + g) * width;
      for (int c = columns.edges[q]; c < columns.edges[q + 1]; ++c) sum += row[c];
    }
    cells[cell] = sum;
  }
  __syncthreads();

  for (int position = threadIdx.x; position < grid.positions; position += blockDim.x) {
    pooled[plane * grid.positions + position] = T(mean_at(grid, position, cells, 1));
  }
}

// channels_last: one block adds up one cell for 32 * kPack channels of one image; a thread takes kPack channels of
// every blockDim.y-th row of it. cells (N, row segments, column segments, C).
template <typename T, int kPack>
__global__ void __launch_bounds__(32 * kMostCellWarps)
    add_cells_last(const T* __restrict__ x, float* __restrict__ cells, int channels, int tiles,
                   const __grid_constant__ PoolingGrid grid) {
  __shared__ float parts[kMostCellWarps][32 * kPack];
  const PoolingAxis &rows = grid.rows, &columns = grid.columns;
  const int width = columns.edges[columns.segments], lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
  const int r = blockIdx.y / columns.segments, q = blockIdx.y % columns.segments;
  const int64_t n = blockIdx.x / tiles;  // 64 bits: a tensor may have more than 2^31 elements
  const int c = (blockIdx.x % tiles * 32 + lane) * kPack;
  if (c < channels) {
    const T* const from = x + n * rows.edges[rows.segments] * width * channels + c;
    float sum[kPack] = {};
    for (int y = rows.edges[r] + warp; y < rows.edges[r + 1]; y += warps) {
#pragma unroll 8
      for (int column = columns.edges[q]; column < columns.edges[q + 1]; ++column) {
        add_pack<T>(sum, from + (static_cast<int64_t>(y) * width + column) * channels);
      }
    }
    for (int i = 0; i < kPack; ++i) parts[warp][lane * kPack + i] = sum[i];
  }
  __syncthreads();

  const int tile = blockIdx.x % tiles * 32 * kPack;
  float* const to = cells + ((n * rows.segments + r) * columns.segments + q) * channels + tile;
  for (int i = warp * 32 + lane; i < min(32 * kPack, channels - tile); i += 32 * warps) {
    float sum = 0.0f;
    for (int w = 0; w < warps; ++w) sum += parts[w][i];
    to[i] = sum;
  }
}

// channels_first, planes too large for pool_plane: one block adds up one cell of one plane, lanes along its columns.
// cells (N C, row segments, column segments).
template <typename T>
__global__ void __launch_bounds__(32 * kMostCellWarps)
    add_cells_first(const T* __restrict__ x, float* __restrict__ cells, const __grid_constant__ PoolingGrid grid) {
  __shared__ float parts[kMostCellWarps];
  const PoolingAxis &rows = grid.rows, &columns = grid.columns;
  const int width = columns.edges[columns.segments], lane = threadIdx.x, warp = threadIdx.y;
  const int r = blockIdx.y / columns.segments, q = blockIdx.y % columns.segments;
  const int64_t plane = blockIdx.x;
  const T* const from = x + plane * rows.edges[rows.segments] * width;
  float sum = 0.0f;
  for (int y = rows.edges[r] + warp; y < rows.edges[r + 1]; y += kMostCellWarps) {
    const T* const row = from + static_cast<int64_t>(y) * width;
#pragma unroll 4
    for (int c = columns.edges[q] + lane; c < columns.edges[q + 1]; c += 32) sum += static_cast<float>(row[c]);
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (lane == 0) parts[warp] = sum;
  __syncthreads();
  if (warp > 0 || lane > 0) return;
  for (int w = 1; w < kMostCellWarps; ++w) sum += parts[w];
  cells[plane * gridDim.y + blockIdx.y] = sum;
}

// Where things lie in cells and pooled, in elements from one to the next.
struct MeanStrides {
  int64_t cells_image, cells_channel, cells_cell;
  int64_t pooled_image, pooled_channel, pooled_position;
};

// Means from cells in device memory; one thread is one channel at one position.
template <typename T>
__global__ void __launch_bounds__(kMeanThreads)
    means_of_cells(const float* __restrict__ cells, T* __restrict__ pooled, int channels, int tiles,
                   MeanStrides strides, const __grid_constant__ PoolingGrid grid) {
  const int64_t n = blockIdx.x / tiles;
  const int c = blockIdx.x % tiles * kMeanThreads + threadIdx.x, position = blockIdx.y;
  if (c >= channels) return;
  const float* const from = cells + n * strides.cells_image + c * strides.cells_channel;
  T* const to = pooled + n * strides.pooled_image + c * strides.pooled_channel;
  to[position * strides.pooled_position] = T(mean_at(grid, position, from, strides.cells_cell));
}

// Blocks of one grid dimension: at most 2^31 - 1, which the launcher has checked.
unsigned blocks(int64_t count) { return static_cast<unsigned>(count); }

// images x channels means; for channels_first all planes are the channels of one image, so that blocks are full.
template <typename T>
cudaError_t run_means(const float* cells, T* pooled, int64_t images, int channels, const MeanStrides& strides,
                      const PoolingGrid& grid, void* stream) {
  const int tiles = ceil_div(channels, kMeanThreads);
  return launch({dim3(blocks(images * tiles), grid.positions), dim3(kMeanThreads)}, stream, means_of_cells<T>, cells,
                pooled, channels, tiles, strides, grid);
}

template <typename T, int kPack>
cudaError_t run_first(const T* x, T* pooled, float* cells, const PyramidPoolingShape& shape, const PoolingGrid& grid,
                      void* stream) {
  const int planes = static_cast<int>(shape.N * shape.C);
  const PlaneLaunch plan = plane_launch(shape, grid, kPack);
  if (plan.fits) {
    return launch({dim3(planes), dim3(plan.threads), plan.shared_bytes}, stream, pool_plane<T, kPack>, x, pooled,
                  plan.groups, grid);
  }
  const int64_t cell_count = cells_of(grid);
  const cudaError_t error =
      launch({dim3(planes, blocks(cell_count)), dim3(32, kMostCellWarps)}, stream, add_cells_first<T>, x, cells, grid);
  if (error != cudaSuccess) return error;
  return run_means(cells, pooled, 1, planes, {0, cell_count, 1, 0, grid.positions, 1}, grid, stream);
}

template <typename T, int kPack>
cudaError_t run_last(const T* x, T* pooled, float* cells, const PyramidPoolingShape& shape, const PoolingGrid& grid,
                     void* stream) {
  const int channels = static_cast<int>(shape.C), tiles = ceil_div(channels, 32 * kPack);
  const int64_t cell_count = cells_of(grid);
  const cudaError_t error = launch({dim3(blocks(shape.N * tiles), blocks(cell_count)), dim3(32, cell_warps(grid))},
                                   stream, add_cells_last<T, kPack>, x, cells, channels, tiles, grid);
  if (error != cudaSuccess) return error;
  const int64_t C = shape.C;
  return run_means(cells, pooled, shape.N, channels, {cell_count * C, 1, C, grid.positions * C, 1, C}, grid, stream);
}

template <typename T>
cudaError_t run(const void* x, void* pooled, void* workspace, const PyramidPoolingShape& shape, void* stream) {
  constexpr int kPack = 4;
  const PoolingGrid grid = pooling_grid(shape);
  const auto* const from = static_cast<const T*>(x);
  auto* const to = static_cast<T*>(pooled);
  auto* const cells = static_cast<float*>(workspace);
  const bool aligned = reinterpret_cast<std::uintptr_t>(x) % sizeof(Pack<T, kPack>) == 0;
  if (shape.channels_last) {
    const bool packed = aligned && shape.C % kPack == 0;
    return packed ? run_last<T, kPack>(from, to, cells, shape, grid, stream)
                  : run_last<T, 1>(from, to, cells, shape, grid, stream);
  }
  const bool packed = aligned && shape.W % kPack == 0;
  return packed ? run_first<T, kPack>(from, to, cells, shape, grid, stream)
                : run_first<T, 1>(from, to, cells, shape, grid, stream);
}

}  // namespace

std::int64_t pyramid_pooling_workspace(const PyramidPoolingShape& shape) {
  if (shape.N == 0 || shape.C == 0) return 0;
  const PoolingGrid grid = pooling_grid(shape);
  if (!shape.channels_last && plane_launch(shape, grid, 1).fits) return 0;
  return static_cast<std::int64_t>(sizeof(float)) * shape.N * shape.C * cells_of(grid);
}

int pyramid_pooling_cuda(const void* x, void* pooled, void* workspace, Element element,
                         const PyramidPoolingShape& shape, void* stream) {
  if (shape.N == 0 || shape.C == 0) return cudaSuccess;
  if (shape.N > 0x7fffffff / shape.C) return cudaErrorInvalidValue;  // more blocks than a grid has
  switch (element) {
    case Element::kF32:
      return run<float>(x, pooled, workspace, shape, stream);
    case Element::kF16:
      return run<__half>(x, pooled, workspace, shape, stream);
    case Element::kBf16:
      return run<__nv_bfloat16>(x, pooled, workspace, shape, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace edgeseg
