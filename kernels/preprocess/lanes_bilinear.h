// The plain bilinear resize in float32. Part of the vector code: included by preprocess_lanes.cpp only.
#pragma once

#include "preprocess/lanes_normalize.h"

namespace edgeseg {
namespace {

constexpr int kPixelsOfLine = 8 * kLanes;  // output pixels whose source pixels are interpolated into `line` at a time

// to[i] = low * top[i] + high * bottom[i]; reads and writes up to a vector more.
void interpolate_rows(float low, const std::uint8_t* top, float high, const std::uint8_t* bottom, std::ptrdiff_t bytes,
                      float* to) {
#if defined(__AVX2__)
  const auto widened = [](const std::uint8_t* from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  };
  const __m256 weights[2] = {_mm256_set1_ps(low), _mm256_set1_ps(high)};
  for (std::ptrdiff_t i = 0; i < bytes; i += 8) {
    _mm256_storeu_ps(to + i, widened(top + i) * weights[0] + widened(bottom + i) * weights[1]);
  }
#else
  for (std::ptrdiff_t i = 0; i < bytes; ++i) {
    to[i] = static_cast<float>(top[i]) * low + static_cast<float>(bottom[i]) * high;
  }
#endif
}

// The channels of output pixels x to x + kLanes: source pixel low[] and its neighbour to the right, weighted. `line`
// holds source pixels from `first` on.
EDGESEG_INLINE void interpolate_pixels(const FloatAxis& columns, const float* line, int first, int x,
                                       Floats* channels) {
  const Floats low = load<Floats>(columns.low_weight + x), high = load<Floats>(columns.high_weight + x);
#if defined(__AVX2__)
  // Eight rows of both pixels' six channels, transposed.
  __m256 near[3][kEights], next[3][kEights];
  for (int eight = 0; eight < kEights; ++eight) {
    const int* at = columns.low + x + 8 * eight;
    __m256 pair[8];
    for (int i = 0; i < 8; i += 2) {
      const __m256 one = _mm256_loadu_ps(line + 3 * static_cast<std::ptrdiff_t>(at[i] - first));
      const __m256 other = _mm256_loadu_ps(line + 3 * static_cast<std::ptrdiff_t>(at[i + 1] - first));
      pair[i] = _mm256_unpacklo_ps(one, other);      // R and G of the pixel; G and B of its neighbour
      pair[i + 1] = _mm256_unpackhi_ps(one, other);  // B of the pixel and R of its neighbour
    }
    const auto column = [&pair](int kind, bool second, bool upper) {
      const auto four = [&](int i) {
        return second ? _mm256_shuffle_ps(pair[kind + i], pair[kind + i + 2], 0xee)
                      : _mm256_shuffle_ps(pair[kind + i], pair[kind + i + 2], 0x44);
      };
      return upper ? _mm256_permute2f128_ps(four(0), four(4), 0x31) : _mm256_permute2f128_ps(four(0), four(4), 0x20);
    };
    near[0][eight] = column(0, false, false);
    near[1][eight] = column(0, true, false);
    near[2][eight] = column(1, false, false);
    next[0][eight] = column(1, true, false);
    next[1][eight] = column(0, false, true);
    next[2][eight] = column(0, true, true);
  }
  for (int c = 0; c < 3; ++c) channels[c] = joined(near[c]) * low + joined(next[c]) * high;
#else
  for (int c = 0; c < 3; ++c) {
    float near[kLanes], next[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const float* pixel = line + 3 * static_cast<std::ptrdiff_t>(columns.low[x + i] - first) + c;
      near[i] = pixel[0];
      next[i] = pixel[3];
    }
    channels[c] = load<Floats>(near) * low + load<Floats>(next) * high;
  }
#endif
}

// Output row y from the source rows of its taps, normalised. `line`: 3 * W + kRowSlack / 4 floats.
template <typename E>
void interpolate_row(const PreprocessPlan& plan, const std::uint8_t* top, const std::uint8_t* bottom, int y,
                     float* line, void* tensor) {
  const Floats scale[3] = {broadcast(plan.scale[0]), broadcast(plan.scale[1]), broadcast(plan.scale[2])};
  const Floats bias[3] = {broadcast(plan.bias[0]), broadcast(plan.bias[1]), broadcast(plan.bias[2])};
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(y) * plan.w;
  typename E::Type* const to[3] = {row_of<E>(plan, tensor, at, 0), row_of<E>(plan, tensor, at, 1),
                                   row_of<E>(plan, tensor, at, 2)};
  const FloatAxis columns = plan.float_columns;
  const int w = plan.w;
  for (int begin = 0; begin < w; begin += kPixelsOfLine) {
    const int end = begin + kPixelsOfLine < w ? begin + kPixelsOfLine : w;
    const int first = columns.low[begin], past = columns.low[end - 1] + 2;  // W + 1 at the right end
    const std::ptrdiff_t skipped = 3 * static_cast<std::ptrdiff_t>(first);
    const std::ptrdiff_t bytes = 3 * static_cast<std::ptrdiff_t>(past < plan.W ? past : plan.W) - skipped;
    interpolate_rows(plan.float_rows.low_weight[y], top + skipped, plan.float_rows.high_weight[y], bottom + skipped,
                     bytes, line);
    std::memset(line + bytes, 0, kRowSlack / 2);  // what is there has no weight, but must not be NaN
    for (int x = begin; x < end; x += kLanes) {
      Floats channels[3];
      interpolate_pixels(columns, line, first, x, channels);
      const int count = end - x;
      for (int c = 0; c < 3; ++c) {
        const Floats values = channels[c] * scale[c] + bias[c];
        count >= kLanes ? store_floats<E>(to[c] + x, values) : store_floats<E>(to[c] + x, values, count);
      }
    }
  }
}

}  // namespace
}  // namespace edgeseg
