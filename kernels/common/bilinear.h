// The index map and the weights of bilinear resizing with half-pixel centres (align_corners = false), written once for
// host and device: float32 scale, source coordinate and weights as in torch's upsample_bilinear2d given a size.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define EDGESEG_HOST_DEVICE __host__ __device__
#else
#define EDGESEG_HOST_DEVICE
#endif

namespace edgeseg {

// value = weight_low * source[low] + weight_high * source[high]
//
// The weights form, not low + t * (high - low): rounding keeps it monotone in both sources, on which pruning relies.
struct BilinearTap {
  int low;            // in [0, in_size)
  int high;           // low + 1; low at the last source pixel and where the size does not change
  float weight_low;   // 1 - weight_high
  float weight_high;  // in [0, 1)
};

EDGESEG_HOST_DEVICE inline float bilinear_scale(int in_size, int out_size) {
  return static_cast<float>(in_size) / static_cast<float>(out_size);
}

// Source coordinate of the centre of output pixel `out`, before the clamp at 0. Pixel centres are at +0.5.
// fma(scale, out + 0.5, -0.5), as torch's kernels compute it where the machine has FMA. On a host it is taken through
// double, where the product (48 bits) is exact and so is a difference that is not negative: the same single rounding.
EDGESEG_HOST_DEVICE inline float bilinear_source(int out, float scale) {
#if defined(__CUDA_ARCH__)
  return fmaf(scale, static_cast<float>(out) + 0.5f, -0.5f);
#else
  return static_cast<float>(static_cast<double>(scale) * (static_cast<double>(out) + 0.5) - 0.5);
#endif
}

EDGESEG_HOST_DEVICE inline BilinearTap bilinear_tap(int out, int in_size, int out_size, float scale) {
  if (in_size == out_size) return {out, out, 1.0f, 0.0f};  // torch's own special case; high matters to infinities
  const float unclamped = bilinear_source(out, scale);
  const float source = unclamped < 0.0f ? 0.0f : unclamped;
  int low = static_cast<int>(source);
  if (low > in_size - 1) low = in_size - 1;  // rounding can carry the last pixel over the edge
  float high_weight = source - static_cast<float>(low);
  if (high_weight > 1.0f) high_weight = 1.0f;
  return {low, low + (low < in_size - 1 ? 1 : 0), 1.0f - high_weight, high_weight};
}

}  // namespace edgeseg
