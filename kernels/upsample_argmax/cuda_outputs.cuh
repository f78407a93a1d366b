// What the kernels of upsample_argmax have in common: one image's tensors, its blocks, single outputs from their taps; and
// the kernel that makes every output from every class. Included by upsample_argmax.cu only.
#pragma once

#include "common/cuda.h"
#include "upsample_argmax/upsample_argmax.h"

namespace edgeseg {
namespace {

constexpr int kRows = 4, kColumns = 32;  // cells of a block
constexpr int kThreads = 32 * kRows;
constexpr int kBlocks = 4;  // at a time on a multiprocessor, at least: up to 128 registers a thread, of which none spills

template <typename T>
struct Image {
  const T* logits;  // (C, h, w)
  std::uint8_t* labels;
  int classes;
  BilinearAxis rows, columns;
  int block_columns;  // blocks side by side; they are numbered row after row

  __device__ int block_row() const { return static_cast<int>(blockIdx.x) / block_columns; }
  __device__ int block_column() const { return static_cast<int>(blockIdx.x) % block_columns; }
  __device__ std::int64_t plane() const { return static_cast<std::int64_t>(rows.in_size) * columns.in_size; }
  __device__ std::int64_t output(int y, int x) const { return static_cast<std::int64_t>(y) * columns.out_size + x; }
  __device__ const T* pixel(int y, int x) const { return logits + static_cast<std::int64_t>(y) * columns.in_size + x; }
};

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(__half x) { return __half2float(x); }
__device__ __forceinline__ float number(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ int clamped(int at, int size) { return at < 0 ? 0 : at < size ? at : size - 1; }

__device__ __forceinline__ float blend(float low, float high, float weight_low, float weight_high) {
  return fmaf(high, weight_high, low * weight_low);
}

// Label of one output by its taps over classes [0, count) or over a list of them, NaN before every number.
template <typename T>
__device__ int label_of(const Image<T>& image, const BilinearTap& y, const BilinearTap& x, const std::uint8_t* list,
                        int count) {
  const T* top_left = image.pixel(y.low, x.low);
  const T* top_right = image.pixel(y.low, x.high);
  const T* bottom_left = image.pixel(y.high, x.low);
  const T* bottom_right = image.pixel(y.high, x.high);
  const std::int64_t plane = image.plane();
  float best = -INFINITY;
  int which = list ? list[0] : 0;
  for (int i = 0; i < count; ++i) {
    const int k = list ? list[i] : i;
    const std::int64_t at = k * plane;
    const float top =
        blend(number(__ldg(top_left + at)), number(__ldg(top_right + at)), x.weight_low, x.weight_high);
    const float bottom =
        blend(number(__ldg(bottom_left + at)), number(__ldg(bottom_right + at)), x.weight_low, x.weight_high);
    const float value = blend(top, bottom, y.weight_low, y.weight_high);
    if (!(value <= best) && best == best) {
      best = value;
      which = k;
    }
  }
  return which;
}

// Every output of a rectangle over all classes: what a tile with a logit that is not finite gets.
template <typename T>
__device__ void label_rectangle(const Image<T>& image, int y_begin, int y_end, int x_begin, int x_end, int lane) {
  for (int x = x_begin + lane; x < x_end; x += 32) {
    const BilinearTap column = image.columns.tap(x);
    for (int y = y_begin; y < y_end; ++y) {
      const int label = label_of(image, image.rows.tap(y), column, nullptr, image.classes);
      image.labels[image.output(y, x)] = static_cast<std::uint8_t>(label);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    scores(Image<T> image, std::int32_t* wide, float* margin) {
  const int x = image.block_column() * kColumns + static_cast<int>(threadIdx.x) % 32;
  const int y = image.block_row() * kRows + static_cast<int>(threadIdx.x) / 32;
  if (x >= image.columns.out_size || y >= image.rows.out_size) return;
  image.logits += blockIdx.y * image.classes * image.plane();
  const std::int64_t at = blockIdx.y * image.output(image.rows.out_size, 0) + image.output(y, x);
  const BilinearTap row = image.rows.tap(y), column = image.columns.tap(x);
  const T* const taps[4] = {image.pixel(row.low, column.low), image.pixel(row.low, column.high),
                            image.pixel(row.high, column.low), image.pixel(row.high, column.high)};
  const std::int64_t plane = image.plane();
  float best = -INFINITY, second = -INFINITY;
  int which = 0;
#pragma unroll 4
  for (int k = 0; k < image.classes; ++k) {
    float value[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) value[i] = number(__ldg(taps[i] + k * plane));
    const float here = blend(blend(value[0], value[1], column.weight_low, column.weight_high),
                             blend(value[2], value[3], column.weight_low, column.weight_high), row.weight_low,
                             row.weight_high);
    if (!(here <= best) && best == best) {
      second = best;
      best = here;
      which = k;
    } else if (!(here <= second)) {
      second = here;
    }
  }
  if (wide) {
    wide[at] = which;
  } else {
    image.labels[at] = static_cast<std::uint8_t>(which);
  }
  if (margin) margin[at] = image.classes > 1 ? best - second : best - best + INFINITY;
}

}  // namespace
}  // namespace edgeseg
