// preprocess on CUDA; the specification and the plan's layout are preprocess.h.
#include "common/bilinear.h"
#include "common/cuda.h"
#include "preprocess/preprocess.h"

namespace edgeseg {
namespace {

constexpr int kTileWidth = 64, kTileHeight = 16;  // output pixels of a block
constexpr int kThreads = 256, kThreadRows = kThreads / kTileWidth;
constexpr int kOutputs = kTileHeight / kThreadRows;  // of one thread, all in one column
constexpr int kWords = 16;                           // words of four source rows in shared memory at once: 12 KB
constexpr int kBlocksAtOnce = 3;                     // on a multiprocessor: at most 80 registers a thread
constexpr std::int32_t kHalfUnit = 1 << 21;

struct Job {
  PreprocessImages images;
  const std::uint32_t* __restrict__ plan;
  int N, H, W, h, w;
  bool bgr;
};

__device__ __forceinline__ void put(float* to, float value) { *to = value; }
__device__ __forceinline__ void put(__half* to, float value) { *to = __float2half_rn(value); }

__device__ __forceinline__ float plan_float(const std::uint32_t* plan, int at) {
  return __int_as_float(static_cast<int>(__ldg(plan + at)));
}

// sum + the four taps of `pixels` times their 23-bit weights.
__device__ __forceinline__ unsigned add_quad(unsigned sum, unsigned pixels, const unsigned* weights) {
  const unsigned high = __dp4a(pixels, weights[2], 0u);
  const unsigned middle = __dp4a(pixels, weights[1], high << 8);
  return sum + __dp4a(pixels, weights[0], middle << 8);
}

__device__ __forceinline__ unsigned byte_of(unsigned sum) {
  const int value = static_cast<int>(sum) >> 22;
  return static_cast<unsigned>(value < 255 ? value : 255);
}

// Four neighbouring pixels as a word for each channel, in three aligned words and their neighbour. What lies past the
// image's end is left out: its weights are zero.
__device__ __forceinline__ void load_quad(const std::uint8_t* at, const std::uint8_t* end, unsigned* channels) {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  const auto* words = reinterpret_cast<const unsigned*>(address & ~std::uintptr_t{3});
  unsigned bytes[3];
  if (reinterpret_cast<const std::uint8_t*>(words + 4) <= end) {
    const unsigned shift = static_cast<unsigned>(address & 3) * 8;
    const unsigned first = __ldg(words), second = __ldg(words + 1), third = __ldg(words + 2), fourth = __ldg(words + 3);
    bytes[0] = __funnelshift_r(first, second, shift);
    bytes[1] = __funnelshift_r(second, third, shift);
    bytes[2] = __funnelshift_r(third, fourth, shift);
  } else {
    bytes[0] = bytes[1] = bytes[2] = 0;
    for (int i = 0; i < 12; ++i) {
      if (at + i < end) bytes[i / 4] |= static_cast<unsigned>(at[i]) << (i % 4 * 8);
    }
  }
  channels[0] = __byte_perm(__byte_perm(bytes[0], bytes[1], 0x0630), bytes[2], 0x5210);
  channels[1] = __byte_perm(__byte_perm(bytes[0], bytes[1], 0x0741), bytes[2], 0x6210);
  channels[2] = __byte_perm(__byte_perm(bytes[0], bytes[1], 0x0052), bytes[2], 0x7410);
}

// Column x of source rows 4 * word .. 4 * word + 3, resized, as one word for each channel. Rows past the last one are
// the last one: their weights are zero.
__device__ __forceinline__ void resize_columns(const Job& job, const std::uint8_t* image, const std::uint8_t* end,
                                               int x, int word, unsigned* resized) {
  const int quads = static_cast<int>(__ldg(job.plan + kPlanColumnQuads));
  const std::uint32_t* first = job.plan + kPlanWeights;
  resized[0] = resized[1] = resized[2] = 0;
#pragma unroll 1  // two rows at a time: more would take registers that other warps need
  for (int r = 0; r < 4; r += 2) {
    std::int64_t at = 3 * static_cast<std::int64_t>(__ldg(first + x));
    const std::uint32_t* weights = first + job.w + x;
    const std::uint8_t* rows[2];
    unsigned sums[2][3];
    for (int i = 0; i < 2; ++i) {
      rows[i] = image + min(4 * word + r + i, job.H - 1) * job.images.row_pitch;
      sums[i][0] = sums[i][1] = sums[i][2] = kHalfUnit;
    }
#pragma unroll 1
    for (int quad = 0; quad < quads; ++quad, at += 12, weights += 3 * static_cast<std::int64_t>(job.w)) {
      const unsigned three[3] = {__ldg(weights), __ldg(weights + job.w), __ldg(weights + 2 * std::int64_t{job.w})};
      for (int i = 0; i < 2; ++i) {
        unsigned channels[3];
        load_quad(rows[i] + at, end, channels);
        for (int c = 0; c < 3; ++c) sums[i][c] = add_quad(sums[i][c], channels[c], three);
      }
    }
    for (int c = 0; c < 3; ++c) resized[c] |= (byte_of(sums[0][c]) | byte_of(sums[1][c]) << 8) << (8 * r);
  }
}

// One tile: source rows in as many turns as shared memory asks for, sums in registers.
template <typename T>
__device__ void antialias_tile(const Job& job, int n, int first_y, const float* table, unsigned* shared, T* tensor) {
  const std::uint8_t* image = job.images.first + n * job.images.image_stride;
  const std::int64_t pitch = job.images.row_pitch;
  const std::uint8_t* end = image + (pitch > 0 ? (job.H - 1) * pitch : 0) + 3 * std::int64_t{job.W};
  const int column = threadIdx.x % kTileWidth, thread_row = threadIdx.x / kTileWidth;
  const int x = blockIdx.x * kTileWidth + column;
  const int column_quads = static_cast<int>(__ldg(job.plan + kPlanColumnQuads));
  const int quads = static_cast<int>(__ldg(job.plan + kPlanRowQuads));
  const std::uint32_t* row_first = job.plan + kPlanWeights + (1 + 3 * std::int64_t{column_quads}) * job.w;
  const std::uint32_t* row_weights = row_first + job.h;
  const int last_y = min(first_y + kTileHeight, job.h) - 1;
  const int begin = static_cast<int>(__ldg(row_first + first_y));
  const int last = min(static_cast<int>(__ldg(row_first + last_y)) + quads, (job.H + 3) / 4);

  unsigned sums[kOutputs][3];
  for (int i = 0; i < kOutputs; ++i) sums[i][0] = sums[i][1] = sums[i][2] = kHalfUnit;
  for (int chunk = begin; chunk < last; chunk += kWords) {
    const int chunk_end = min(chunk + kWords, last);
    for (int word = chunk + thread_row; word < chunk_end && x < job.w; word += kThreadRows) {
      unsigned resized[3];
      resize_columns(job, image, end, x, word, resized);
      for (int c = 0; c < 3; ++c) shared[((word - chunk) * 3 + c) * kTileWidth + column] = resized[c];
    }
    __syncthreads();  // the rows are there
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      const int y = first_y + thread_row + i * kThreadRows;
      if (y > last_y) break;
      const int top = static_cast<int>(__ldg(row_first + y));
#pragma unroll 1
      for (int word = max(top, chunk); word < min(top + quads, chunk_end); ++word) {
        const std::uint32_t* at = row_weights + (static_cast<std::int64_t>(y) * quads + word - top) * 3;
        const unsigned three[3] = {__ldg(at), __ldg(at + 1), __ldg(at + 2)};
        for (int c = 0; c < 3; ++c) {
          sums[i][c] = add_quad(sums[i][c], shared[((word - chunk) * 3 + c) * kTileWidth + column], three);
        }
      }
    }
    __syncthreads();  // nobody reads them any more
  }

  if (x >= job.w) return;
  const std::int64_t plane = static_cast<std::int64_t>(job.h) * job.w;
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    const int y = first_y + thread_row + i * kThreadRows;
    if (y > last_y) break;
    T* const to = tensor + 3 * n * plane + static_cast<std::int64_t>(y) * job.w + x;
    for (int c = 0; c < 3; ++c) put(to + (job.bgr ? 2 - c : c) * plane, table[256 * c + byte_of(sums[i][c])]);
  }
}

// Blocks (columns of tiles, rows of tiles, images), the latter two in strides where a grid's limit is met.
template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce) antialias(Job job, T* tensor) {
  float* const table = dynamic_shared<float>();
  unsigned* const rows = reinterpret_cast<unsigned*>(table + 3 * 256);
  for (int i = threadIdx.x; i < 3 * 256; i += kThreads) table[i] = plan_float(job.plan, kPlanTable + i);
  for (int n = blockIdx.z; n < job.N; n += gridDim.z) {
    for (int y = blockIdx.y * kTileHeight; y < job.h; y += gridDim.y * kTileHeight) {
      antialias_tile(job, n, y, table, rows, tensor);  // its first barrier is the table's too
    }
  }
}

// One thread makes one pixel.
template <typename T>
__global__ void __launch_bounds__(kThreads) bilinear(Job job, T* tensor) {
  const int x = blockIdx.x * kTileWidth + threadIdx.x % kTileWidth;
  if (x >= job.w) return;
  const BilinearTap column = BilinearAxis(job.W, job.w, false).tap(x);
  const BilinearAxis rows(job.H, job.h, false);
  const std::int64_t left = 3 * std::int64_t{column.low}, right = 3 * std::int64_t{column.high};
  const std::int64_t plane = static_cast<std::int64_t>(job.h) * job.w;
  for (int n = blockIdx.z; n < job.N; n += gridDim.z) {
    const std::uint8_t* image = job.images.first + n * job.images.image_stride;
    for (int y = blockIdx.y * kThreadRows + threadIdx.x / kTileWidth; y < job.h; y += gridDim.y * kThreadRows) {
      const BilinearTap row = rows.tap(y);
      const std::uint8_t* top = image + row.low * job.images.row_pitch;
      const std::uint8_t* bottom = image + row.high * job.images.row_pitch;
      T* const to = tensor + 3 * n * plane + static_cast<std::int64_t>(y) * job.w + x;
      for (int c = 0; c < 3; ++c) {
        const float upper = __ldg(top + left + c) * column.weight_low + __ldg(top + right + c) * column.weight_high;
        const float lower =
            __ldg(bottom + left + c) * column.weight_low + __ldg(bottom + right + c) * column.weight_high;
        const float value = upper * row.weight_low + lower * row.weight_high;
        put(to + (job.bgr ? 2 - c : c) * plane,
            value * plan_float(job.plan, kPlanScale + c) + plan_float(job.plan, kPlanBias + c));
      }
    }
  }
}

template <typename T>
cudaError_t start(const Job& job, bool interpolate, T* tensor, void* stream) {
  constexpr int kMostBlocks = 65535;  // of a grid's y and z
  const int rows = interpolate ? kThreadRows : kTileHeight;
  const dim3 blocks(ceil_div(job.w, kTileWidth), std::min(ceil_div(job.h, rows), kMostBlocks),
                    std::min(job.N, kMostBlocks));
  if (interpolate) return launch({blocks, dim3(kThreads), 0}, stream, &bilinear<T>, job, tensor);
  constexpr std::size_t kShared = (3 * 256 + kWords * 3 * kTileWidth) * 4;
  return launch({blocks, dim3(kThreads), kShared}, stream, &antialias<T>, job, tensor);
}

}  // namespace

int preprocess_cuda(const PreprocessImages& images, const std::uint32_t* plan, void* tensor,
                    const PreprocessShape& shape, const PreprocessOptions& options, void* stream) {
  if (shape.N == 0) return 0;
  const Job job = {images,
                   plan,
                   static_cast<int>(shape.N),
                   static_cast<int>(shape.H),
                   static_cast<int>(shape.W),
                   static_cast<int>(shape.h),
                   static_cast<int>(shape.w),
                   options.bgr};
  const bool interpolate = interpolates(shape, options);
  return options.element == Element::kF16 ? start(job, interpolate, static_cast<__half*>(tensor), stream)
                                          : start(job, interpolate, static_cast<float*>(tensor), stream);
}

}  // namespace edgeseg
