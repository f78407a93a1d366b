// The index map and the weights of bilinear resizing, written once for host and device: float32 scale, source coordinate
// and weights as in torch's upsample_bilinear2d given a size.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define EDGESEG_HOST_DEVICE __host__ __device__
#else
#define EDGESEG_HOST_DEVICE
#endif

namespace edgeseg {

constexpr std::int64_t kMaxSide = 1 << 22;  // of an image: out + 0.5 is exact in float32 below 2^23

// value = weight_low * source[low] + weight_high * source[high]
//
// The weights form, not low + t * (high - low): rounding keeps it monotone in both sources, on which pruning relies.
struct BilinearTap {
  int low;            // in [0, in_size)
  int high;           // low + 1; low at the last source pixel and where the size does not change
  float weight_low;   // 1 - weight_high
  float weight_high;  // in [0, 1)
};

// One direction of a resize.
struct BilinearAxis {
  int in_size, out_size;
  bool align_corners;  // the first and the last pixels' centres fall on each other; otherwise pixels cover each other
  float scale;

  EDGESEG_HOST_DEVICE BilinearAxis(int in, int out, bool align)
      : in_size(in), out_size(out), align_corners(align), scale(scale_of(in, out, align)) {}

  // Source coordinate of output pixel `out`, before the clamp at 0.
  //
  // Half-pixel centres: fma(scale, out + 0.5, -0.5), as torch's kernels compute it where the machine has FMA. On a host
  // it is taken through double, where the product (48 bits) is exact and so is a difference that is not negative: the
  // same single rounding.
  EDGESEG_HOST_DEVICE float source(int out) const {
    if (align_corners) return scale * static_cast<float>(out);
#if defined(__CUDA_ARCH__)
    return fmaf(scale, static_cast<float>(out) + 0.5f, -0.5f);
#else
    return static_cast<float>(static_cast<double>(scale) * (static_cast<double>(out) + 0.5) - 0.5);
#endif
  }

  EDGESEG_HOST_DEVICE BilinearTap tap(int out) const {
    if (in_size == out_size) return {out, out, 1.0f, 0.0f};  // torch's own special case; high matters to infinities
    const float unclamped = source(out);
    const float clamped = unclamped < 0.0f ? 0.0f : unclamped;
    int low = static_cast<int>(clamped);
    if (low > in_size - 1) low = in_size - 1;  // rounding can carry the last pixel over the edge
    float high_weight = clamped - static_cast<float>(low);
    if (high_weight > 1.0f) high_weight = 1.0f;
    return {low, low + (low < in_size - 1 ? 1 : 0), 1.0f - high_weight, high_weight};
  }

  // The first output pixel whose low tap is `low` or beyond; out_size when there is none.
  EDGESEG_HOST_DEVICE int first_output(int low) const {
    if (low <= 0) return 0;
    const float guess = scale > 0.0f ? static_cast<float>(low) / scale : static_cast<float>(out_size);
    int out = guess < static_cast<float>(out_size) ? static_cast<int>(guess) : out_size;
    while (out > 0 && tap(out - 1).low >= low) --out;
    while (out < out_size && tap(out).low < low) ++out;
    return out;
  }

 private:
  EDGESEG_HOST_DEVICE static float scale_of(int in, int out, bool align) {
    if (!align) return static_cast<float>(in) / static_cast<float>(out);
    return out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0f;
  }
};

}  // namespace edgeseg
