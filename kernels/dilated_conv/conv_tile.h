// The inner part of dilated_conv.cu: a tile of 128 pixels by 128 outputs, how its operands come into shared memory and
// how they are multiplied. A slice is 64 bytes along the channels: of each pixel, or of each output's weight, 4 chunks
// of 16.
#pragma once

#include "common/tensor_core.h"
#include "dilated_conv/conv_plan.h"

namespace edgeseg {

constexpr int kConvStages = 3;  // slices in shared memory: one multiplied, the others on their way; 48 KiB
constexpr int kConvOperandBytes = kConvTile * kConvSliceBytes;
constexpr int kConvStageBytes = 2 * kConvOperandBytes;
constexpr int kSumPitch = kConvTile + 8;  // of sums on their way through shared memory; 8 against bank conflicts

// Where chunk `chunk` of row `row` of an operand lies. Rows are 64 bytes apart; chunks change places so that 8 rows'
// chunks of one number, which ldmatrix reads together, lie in 8 different sets of 4 banks.
__device__ __forceinline__ int chunk_offset(int row, int chunk) {
  return row * kConvSliceBytes + (chunk ^ (row >> 1 & 3)) * 16;
}

// Copies a tile's slices, one per call, along its zone's taps and their channels.
template <typename T, int kThreads>
struct ConvLoader {
  static constexpr int kRows = kConvTile * 4 / kThreads;  // that a thread copies a chunk of, kThreads / 4 apart

  const ConvPlan& plan;
  const ConvEntry& entry;
  const ConvKernelBranch& branch;
  const char* pixel[kRows];   // at the zone's pixels, chunk included; null beyond the last
  const char* weight[kRows];  // at the outputs; those beyond the last read the last one's
  int tap, slice;             // of the next copy

  __device__ __forceinline__ ConvLoader(const ConvPlan& plan, const ConvEntry& entry, int pixel_tile, int output_tile,
                                        int first_slice)
      : plan(plan),
        entry(entry),
        branch(plan.branch[entry.branch]),
        tap(first_slice / plan.slices),
        slice(first_slice % plan.slices) {
    const int area = entry.height * entry.width;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = static_cast<int>(threadIdx.x) / 4 + i * (kThreads / 4), chunk = static_cast<int>(threadIdx.x) % 4;
      const int at = pixel_tile * kConvTile + row;  // (image, y, x) of the zone, in [0, N * area)
      const int image = at / area, y = at % area / entry.width, x = at % area % entry.width;
      const std::int64_t index = (static_cast<std::int64_t>(image) * plan.H + entry.y + y) * plan.W + entry.x + x;
      pixel[i] = image < plan.N ? plan.x + index * plan.x_pitch_bytes + chunk * 16 : nullptr;
      const int output = min(output_tile * kConvTile + row, plan.O - 1);
      weight[i] = branch.weight + static_cast<std::int64_t>(output) * plan.C * static_cast<int>(sizeof(T)) + chunk * 16;
    }
  }

  __device__ __forceinline__ void copy(char* stage) {
    const int radius = branch.kernel / 2;
    const int v = entry.first_row_tap + tap / entry.column_taps, u = entry.first_column_tap + tap % entry.column_taps;
    const std::int64_t shift = (static_cast<std::int64_t>(v - radius) * plan.W + (u - radius)) * branch.dilation;
    const int offset = slice * kConvSliceBytes;
    const std::int64_t pixel_offset = shift * plan.x_pitch_bytes + offset;
    const std::int64_t weight_offset =
        static_cast<std::int64_t>(v * branch.kernel + u) * plan.O * plan.C * static_cast<int>(sizeof(T)) + offset;
    const int chunk = static_cast<int>(threadIdx.x) % 4;
    const int bytes = max(0, min(16, plan.C * static_cast<int>(sizeof(T)) - offset - chunk * 16));
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int to = chunk_offset(static_cast<int>(threadIdx.x) / 4 + i * (kThreads / 4), chunk);
      // Rows without a pixel keep what was there: it reaches only sums that nobody stores.
      if (pixel[i] != nullptr) copy_chunk(stage + to, pixel[i] + pixel_offset, bytes);
      copy_chunk(stage + kConvOperandBytes + to, weight[i] + weight_offset, bytes);
    }
    if (++slice == plan.slices) slice = 0, ++tap;
  }

  __device__ __forceinline__ void copy_chunk(char* to, const char* from, int bytes) {
    if (plan.aligned) {
      cp_async_16(to, bytes > 0 ? from : plan.x, bytes > 0);  // aligned: all 16 or none
      return;
    }
    constexpr int kSize = static_cast<int>(sizeof(T));
#pragma unroll 1
    for (int i = 0; i < 16 / kSize; ++i) {
      reinterpret_cast<T*>(to)[i] = i * kSize < bytes ? reinterpret_cast<const T*>(from)[i] : T();
    }
  }
};

__device__ __forceinline__ void multiply_fragments(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_f16(c, a, b);
}
__device__ __forceinline__ void multiply_fragments(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_s8(c, a, b);
}

// On tensor cores, for __half (float sums) and int8 (int sums). 4 warps: warp w makes every other 16 pixels, from
// 16 (w % 2), and 64 outputs from 64 (w / 2); so also a tile with few pixels keeps all of them busy.
template <typename T, typename S>
struct TensorTile {
  using Element = T;
  using Sum = S;
  static constexpr int kThreads = 128, kBlocksPerSm = 2;

  Sum sums[4][8][4];

  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ __forceinline__ static int warp() { return static_cast<int>(threadIdx.x) / 32; }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 4 * 8 * 4; ++i) sums[i / 32][i / 4 % 8][i % 4] = 0;
  }

  // pixels, outputs: of the tile that there are; products of others are not computed, by 16 and by 64.
  __device__ __forceinline__ void multiply(const char* stage, int pixels, int outputs) {
    if (warp() / 2 * 64 >= outputs) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // 32 bytes along k
      unsigned b[8][2];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = warp() / 2 * 64 + i * 16 + lane() / 16 * 8 + lane() % 8, chunk = half * 2 + lane() / 8 % 2;
        unsigned r[4];
        ldmatrix_x4(r, stage + kConvOperandBytes + chunk_offset(row, chunk));
        b[2 * i][0] = r[0], b[2 * i][1] = r[1], b[2 * i + 1][0] = r[2], b[2 * i + 1][1] = r[3];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int first = i * 32 + warp() % 2 * 16;
        if (first >= pixels) continue;
        unsigned a[4];
        ldmatrix_x4(a, stage + chunk_offset(first + lane() % 16, half * 2 + lane() / 16));
#pragma unroll
        for (int j = 0; j < 8; ++j) multiply_fragments(sums[i][j], a, b[j]);
      }
    }
  }

  // Pixels [32 round, 32 round + 32) to rows of kSumPitch.
  __device__ __forceinline__ void put(int round, Sum* rows) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i != round) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        Sum* to = rows + (warp() % 2 * 16 + lane() / 4) * kSumPitch + warp() / 2 * 64 + j * 8 + lane() % 4 * 2;
        to[0] = sums[i][j][0], to[1] = sums[i][j][1];
        to[8 * kSumPitch] = sums[i][j][2], to[8 * kSumPitch + 1] = sums[i][j][3];
      }
    }
  }
};

// float32 on ordinary cores (TF32 would lose 13 bits). 256 threads: thread t makes 8 pixels from t / 16 on and 8
// outputs from t % 16 on, every 16th.
struct FloatTile {
  using Element = float;
  using Sum = float;
  static constexpr int kThreads = 256, kBlocksPerSm = 2;

  float sums[8][8];

  __device__ __forceinline__ static int first_pixel() { return static_cast<int>(threadIdx.x) / 16; }
  __device__ __forceinline__ static int first_output() { return static_cast<int>(threadIdx.x) % 16; }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 64; ++i) sums[i / 8][i % 8] = 0.0f;
  }

  __device__ __forceinline__ void multiply(const char* stage, int pixels, int) {
#pragma unroll 1  // else registers run out
    for (int chunk = 0; chunk < 4; ++chunk) {
      multiply_half<0>(stage, chunk, pixels);
      multiply_half<4>(stage, chunk, pixels);
    }
  }

  template <int kFirst>
  __device__ __forceinline__ void multiply_half(const char* stage, int chunk, int pixels) {
    float4 b[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = first_output() + 16 * (kFirst + j);
      b[j] = *reinterpret_cast<const float4*>(stage + kConvOperandBytes + chunk_offset(row, chunk));
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (16 * i >= pixels) continue;
      const float4 a = *reinterpret_cast<const float4*>(stage + chunk_offset(first_pixel() + 16 * i, chunk));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float& sum = sums[i][kFirst + j];
        sum = fmaf(a.x, b[j].x, sum);
        sum = fmaf(a.y, b[j].y, sum);
        sum = fmaf(a.z, b[j].z, sum);
        sum = fmaf(a.w, b[j].w, sum);
      }
    }
  }

  __device__ __forceinline__ void put(int round, float* rows) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i / 2 != round) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) rows[(i % 2 * 16 + first_pixel()) * kSumPitch + first_output() + 16 * j] = sums[i][j];
    }
  }
};

}  // namespace edgeseg
