// upsample_argmax on CUDA. The specification, and why most of it need not be computed, is upsample_argmax.h.
//
// A block has four rows of 32 cells, a warp one row, a lane one cell.
//   label_pixels   all threads: the best class of the block's source pixels and of one more row and column around them.
//   cells_scaled   x2, x4, x8: a lane makes the outputs around its own pixel, S columns by S rows, with weights that are
//                  constants; cell rows begin with a half one above the first pixel row. Corners are then six pixels.
//   cells_any      any other size: lanes find the classes that can win, then take the outputs of the row in turn.
//   scores         margins and more than 255 classes: a thread makes one output from every class.
// Logits are read twice, the second time from L1 or L2; comparisons and arithmetic are in float32.
#include <algorithm>

#include "common/cuda.h"
#include "upsample_argmax/cuda_outputs.cuh"
#include "upsample_argmax/upsample_argmax.h"

namespace edgeseg {
namespace {

constexpr int kPixelRows = kRows + 1, kPixelColumns = kColumns + 2;
constexpr int kPixels = kPixelRows * kPixelColumns;
constexpr int kParts = 3;  // of the classes: 3 x 170 pixels fill the 128 threads four times, almost to the last one
constexpr unsigned kAll = 0xffffffffu;
constexpr int kMarked = 255;  // label of a pixel with a logit that is not finite

struct Shared {
  float best[kParts * kPixels];
  std::uint8_t which[kParts * kPixels];
  std::uint8_t labels[kPixels];
  std::uint8_t list[kRows][kMaxClasses + 1];  // of each warp: classes that can win
};

// shared.labels of the pixels from (row, column) on; what lies outside repeats the border.
template <typename T>
__device__ void label_pixels(const Image<T>& image, int row, int column, Shared& shared) {
  const std::int64_t plane = image.plane();
  for (int item = threadIdx.x; item < kParts * kPixels; item += kThreads) {
    const int part = item / kPixels, pixel = item % kPixels;
    const int first = image.classes * part / kParts, last = image.classes * (part + 1) / kParts;
    const T* at = image.pixel(clamped(row + pixel / kPixelColumns, image.rows.in_size),
                              clamped(column + pixel % kPixelColumns, image.columns.in_size)) +
                  first * plane;
    float best = -INFINITY, poison = 0.0f;  // NaN after one logit that is not finite
    int which = first;
#pragma unroll 8
    for (int k = first; k < last; ++k, at += plane) {
      const float value = number(__ldg(at));
      poison = fmaf(value, 0.0f, poison);
      if (value > best) {
        best = value;
        which = k;
      }
    }
    shared.best[item] = best + poison;
    shared.which[item] = static_cast<std::uint8_t>(which);
  }
  __syncthreads();
  for (int pixel = threadIdx.x; pixel < kPixels; pixel += kThreads) {
    float best = shared.best[pixel];
    int which = shared.which[pixel];
    for (int part = 1; part < kParts; ++part) {
      const float value = shared.best[part * kPixels + pixel];
      if (value > best || value != value) {
        best = value;
        which = shared.which[part * kPixels + pixel];
      }
    }
    shared.labels[pixel] = static_cast<std::uint8_t>(best == best ? which : kMarked);
  }
  __syncthreads();
}

// Where the kN corner pixels of one cell lie in every class's plane.
template <int kN>
struct Corners {
  int at[kN];

  // Of one class, whose plane begins at `from`.
  template <typename T>
  __device__ void read(const T* from, float* values) const {
#pragma unroll
    for (int i = 0; i < kN; ++i) values[i] = number(__ldg(from + at[i]));
  }
  template <typename T>
  __device__ float least(const T* from) const {
    float values[kN];
    read(from, values);
    float least = values[0];
#pragma unroll
    for (int i = 1; i < kN; ++i) least = fminf(least, values[i]);
    return least;
  }
  template <typename T>
  __device__ float greatest(const T* from) const {
    float values[kN];
    read(from, values);
    float greatest = values[0];
#pragma unroll
    for (int i = 1; i < kN; ++i) greatest = fmaxf(greatest, values[i]);
    return greatest;
  }
};

// Lists the classes that can win in one of the warp's cells that `wants`, ascending; their number. Two corners' best
// classes, `one` and `other`, give the bound.
template <typename T, int kN>
__device__ int survivors(const Image<T>& image, const Corners<kN>& corners, bool wants, int one, int other,
                         std::uint8_t* list, int lane) {
  const std::int64_t plane = image.plane();
  float bound = INFINITY;
  if (wants) {
    bound = fmaxf(corners.least(image.logits + one * plane), corners.least(image.logits + other * plane));
    bound -= fabsf(bound) * 0x1p-20f;
  }
  constexpr int kAtOnce = 4;  // classes whose logits are under way together
  int count = 0;
  const T* from = image.logits;
  for (int k = 0; k < image.classes; k += kAtOnce, from += kAtOnce * plane) {
    float most[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) most[i] = corners.greatest(k + i < image.classes ? from + i * plane : from);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (k + i < image.classes && __any_sync(kAll, wants && most[i] >= bound)) {
        if (lane == 0) list[count] = static_cast<std::uint8_t>(k + i);
        ++count;
      }
    }
  }
  __syncwarp();
  return count;
}

// S labels of a lane as one store.
template <int S>
struct Packed;
template <>
struct Packed<2> {
  using Type = std::uint16_t;
};
template <>
struct Packed<4> {
  using Type = std::uint32_t;
};
template <>
struct Packed<8> {
  using Type = std::uint64_t;
};

template <typename T, int S>
__global__ void __launch_bounds__(kThreads, kBlocks) cells_scaled(Image<T> image) {
  using Word = typename Packed<S>::Type;
  __shared__ Shared shared;
  image.logits += blockIdx.y * image.classes * image.plane();
  image.labels += blockIdx.y * image.output(image.rows.out_size, 0);
  const int h = image.rows.in_size, w = image.columns.in_size, H = image.rows.out_size;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_row = image.block_row() * kRows - 1, first_column = image.block_column() * kColumns;
  label_pixels(image, first_row, first_column - 1, shared);

  const int row = first_row + warp, column = first_column + lane;
  if (row >= h) return;
  const int y_begin = S * row + S / 2;  // negative for the half cell above the first row
  const std::uint8_t* top = shared.labels + warp * kPixelColumns + lane;
  const std::uint8_t* bottom = top + kPixelColumns;
  const std::uint8_t* beyond = row < 0 ? bottom + kPixelColumns : bottom;  // has the weight 0, and 0 x infinity is NaN
  const bool inside = column < w;
  const int own = top[1];
  bool unanimous = true, marked = false;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    unanimous = unanimous && top[i] == own && bottom[i] == own;
    marked = marked || top[i] == kMarked || bottom[i] == kMarked || beyond[i] == kMarked;
  }
  if (__any_sync(kAll, inside && marked)) {
    label_rectangle(image, max(y_begin, 0), min(y_begin + S, H), S * first_column,
                    min(S * (first_column + kColumns), S * w), lane);
    return;
  }
  const Word filled = static_cast<Word>(static_cast<std::uint64_t>(own) * 0x0101010101010101u);
  const bool wants = inside && !unanimous;
  std::uint8_t* const to = image.labels + static_cast<std::int64_t>(S) * column;
  if (!__any_sync(kAll, wants)) {
#pragma unroll
    for (int r = 0; r < S; ++r) {
      const int y = y_begin + r;
      if (inside && y >= 0 && y < H) *reinterpret_cast<Word*>(to + image.output(y, 0)) = filled;
    }
    return;
  }

  Corners<6> corners;
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    corners.at[i] = clamped(row + i / 3, h) * w + clamped(column - 1 + i % 3, w);
  }
  std::uint8_t* const list = shared.list[warp];
  const int count = survivors(image, corners, wants, own, bottom[1], list, lane);

  constexpr int kAtOnce = S < 16 / S ? S : 16 / S;  // output rows whose best values stay in registers
  const std::int64_t plane = image.plane();
#pragma unroll 1
  for (int r0 = 0; r0 < S; r0 += kAtOnce) {
    float best[kAtOnce][S];
    int which[kAtOnce][S];
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
#pragma unroll
      for (int s = 0; s < S; ++s) {
        best[r][s] = -INFINITY;
        which[r][s] = list[0];
      }
    }
    for (int i = 0; i < count; ++i) {
      const int k = list[i];
      float value[6];
      corners.read(image.logits + k * plane, value);
#pragma unroll
      for (int s = 0; s < S; ++s) {
        constexpr float kStep = 1.0f / S;
        // Output s lies at (s + 0.5) / S - 0.5 from the lane's own pixel, the middle one of three.
        const float high = s < S / 2 ? (s + 0.5f) * kStep + 0.5f : (s + 0.5f) * kStep - 0.5f;
        const int left = s < S / 2 ? 0 : 1;
        const float above = blend(value[left], value[left + 1], 1.0f - high, high);
        const float below = blend(value[3 + left], value[4 + left], 1.0f - high, high);
#pragma unroll
        for (int r = 0; r < kAtOnce; ++r) {
          const float down = (r0 + r + 0.5f) * kStep;
          const float at = blend(above, below, 1.0f - down, down);
          if (at > best[r][s]) {
            best[r][s] = at;
            which[r][s] = k;
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kAtOnce; ++r) {
      Word word = 0;
#pragma unroll
      for (int s = 0; s < S; ++s) word |= static_cast<Word>(static_cast<Word>(which[r][s]) << (8 * s));
      const int y = y_begin + r0 + r;
      if (inside && y >= 0 && y < H) *reinterpret_cast<Word*>(to + image.output(y, 0)) = unanimous ? filled : word;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) cells_any(Image<T> image) {
  __shared__ Shared shared;
  image.logits += blockIdx.y * image.classes * image.plane();
  image.labels += blockIdx.y * image.output(image.rows.out_size, 0);
  const int h = image.rows.in_size, w = image.columns.in_size;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_row = image.block_row() * kRows, first_column = image.block_column() * kColumns;
  label_pixels(image, first_row, first_column, shared);

  const int row = first_row + warp, column = first_column + lane;
  if (row >= h) return;
  const int y_begin = image.rows.first_output(row), y_end = row + 1 < h ? image.rows.first_output(row + 1) : image.rows.out_size;
  const int x_begin = image.columns.first_output(first_column);
  const int x_end = first_column + kColumns < w ? image.columns.first_output(first_column + kColumns) : image.columns.out_size;
  const std::uint8_t* top = shared.labels + warp * kPixelColumns;
  const std::uint8_t* bottom = top + kPixelColumns;
  const int own = top[lane];
  const bool inside = column < w;
  const bool unanimous = top[lane + 1] == own && bottom[lane] == own && bottom[lane + 1] == own;
  const bool marked = own == kMarked || top[lane + 1] == kMarked || bottom[lane] == kMarked || bottom[lane + 1] == kMarked;
  if (__any_sync(kAll, inside && marked)) {
    label_rectangle(image, y_begin, y_end, x_begin, x_end, lane);
    return;
  }
  const unsigned mixed = __ballot_sync(kAll, inside && !unanimous);
  int count = 0;
  if (mixed != 0) {
    Corners<4> corners;
#pragma unroll
    for (int i = 0; i < 4; ++i) corners.at[i] = clamped(row + i / 2, h) * w + clamped(column + i % 2, w);
    count = survivors(image, corners, inside && !unanimous, own, bottom[lane + 1], shared.list[warp], lane);
  }
  for (int x = x_begin + lane; x < x_end; x += 32) {
    const BilinearTap tap = image.columns.tap(x);
    const int cell = tap.low - first_column;
    for (int y = y_begin; y < y_end; ++y) {
      const int label = mixed >> cell & 1 ? label_of(image, image.rows.tap(y), tap, shared.list[warp], count) : top[cell];
      image.labels[image.output(y, x)] = static_cast<std::uint8_t>(label);
    }
  }
}

// x2, x4 or x8 in both directions and rows that begin where whole words do; otherwise 0.
int scale_of(const UpsampleArgmaxShape& shape, bool align_corners, const std::uint8_t* labels) {
  if (align_corners) return 0;
  for (const int scale : {2, 4, 8}) {
    if (shape.H == scale * shape.h && shape.W == scale * shape.w &&
        reinterpret_cast<std::uintptr_t>(labels) % scale == 0) {
      return scale;
    }
  }
  return 0;
}

template <typename T>
cudaError_t launch_labels(Image<T> image, int scale, unsigned images, void* stream) {
  const int rows = ceil_div(image.rows.in_size + (scale > 0), kRows);  // with the half cells above the first row
  image.block_columns = ceil_div(image.columns.in_size, kColumns);
  const Grid grid = {dim3(static_cast<unsigned>(rows) * image.block_columns, images), dim3(kThreads)};
  switch (scale) {
    case 2:
      return launch(grid, stream, cells_scaled<T, 2>, image);
    case 4:
      return launch(grid, stream, cells_scaled<T, 4>, image);
    case 8:
      return launch(grid, stream, cells_scaled<T, 8>, image);
    default:
      return launch(grid, stream, cells_any<T>, image);
  }
}

template <typename T>
cudaError_t launch_scores(Image<T> image, std::int32_t* wide, float* margin, unsigned images, void* stream) {
  const std::int64_t rows = ceil_div(image.rows.out_size, kRows);
  image.block_columns = ceil_div(image.columns.out_size, kColumns);
  if (rows * image.block_columns > INT32_MAX) return cudaErrorInvalidValue;  // 2.7e11 outputs
  return launch({dim3(static_cast<unsigned>(rows * image.block_columns), images), dim3(kThreads)}, stream, scores<T>,
                image, wide, margin);
}

template <typename T>
cudaError_t start(const void* logits, void* labels, float* margin, const UpsampleArgmaxShape& shape, bool align_corners,
                  void* stream) {
  constexpr std::int64_t kMostImages = 65535;  // of one launch: blocks in y
  const bool wide = shape.C > kMaxClasses;
  const bool pruned = !wide && !margin && shape.h * shape.w <= INT32_MAX;  // corners are offsets of 32 bits
  const std::int64_t inputs = shape.C * shape.h * shape.w, outputs = shape.H * shape.W;
  for (std::int64_t n = 0; n < shape.N; n += kMostImages) {
    const unsigned images = static_cast<unsigned>(std::min(kMostImages, shape.N - n));
    std::uint8_t* const narrow = wide ? nullptr : static_cast<std::uint8_t*>(labels) + n * outputs;
    std::int32_t* const broad = wide ? static_cast<std::int32_t*>(labels) + n * outputs : nullptr;
    const Image<T> image = {
        static_cast<const T*>(logits) + n * inputs,
        narrow,
        static_cast<int>(shape.C),
        BilinearAxis(static_cast<int>(shape.h), static_cast<int>(shape.H), align_corners),
        BilinearAxis(static_cast<int>(shape.w), static_cast<int>(shape.W), align_corners),
        0};
    const cudaError_t error =
        pruned ? launch_labels(image, scale_of(shape, align_corners, narrow), images, stream)
               : launch_scores(image, broad, margin ? margin + n * outputs : nullptr, images, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

int upsample_argmax_cuda(const void* logits, Element element, void* labels, float* margin,
                         const UpsampleArgmaxShape& shape, bool align_corners, void* stream) {
  switch (element) {
    case Element::kF32:
      return start<float>(logits, labels, margin, shape, align_corners, stream);
    case Element::kF16:
      return start<__half>(logits, labels, margin, shape, align_corners, stream);
    case Element::kBf16:
      return start<__nv_bfloat16>(logits, labels, margin, shape, align_corners, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace edgeseg
