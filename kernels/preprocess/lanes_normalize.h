// From interleaved bytes to normalised planes. Part of the vector code: included by preprocess_lanes.cpp only.
#pragma once

#include "common/lanes_element.h"
#include "preprocess/preprocess_lanes.h"

namespace edgeseg {
namespace {

#if defined(__AVX2__)
constexpr int kEights = kLanes / 8;  // pixels are taken apart eight at a time

EDGESEG_INLINE Floats joined(const __m256* eights) {
#if EDGESEG_LANES == 16
  return (Floats)_mm512_insertf32x8(_mm512_castps256_ps512(eights[0]), eights[1], 1);
#else
  return (Floats)eights[0];
#endif
}
#endif

// An Arithmetic for every lane.
struct Constants {
  Floats offset, slope, rest, shift;
  explicit Constants(const Arithmetic& a)
      : offset(broadcast(a.offset)), slope(broadcast(a.slope)), rest(broadcast(a.rest)), shift(broadcast(a.shift)) {}
};

EDGESEG_INLINE Floats computed(const Constants& by, Floats x) {
  const Floats distance = x - by.offset;
  return distance * by.slope + (distance * by.rest + by.shift);
}

// Where a row of the tensor, from element `at` of a plane on, lies in the plane of a channel of the image.
template <typename E>
EDGESEG_INLINE typename E::Type* row_of(const PreprocessPlan& plan, void* tensor, std::ptrdiff_t at, int channel) {
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(plan.h) * plan.w;
  return static_cast<typename E::Type*>(tensor) + plan.plane[channel] * plane + at;
}

// The channels of kLanes pixels; reads four bytes more than they are.
EDGESEG_INLINE void split(const std::uint8_t* pixels, Floats* channels) {
#if defined(__AVX2__)
  __m256 eights[3][kEights];
  for (int i = 0; i < kEights; ++i, pixels += 24) {
    const __m256i bytes =
        _mm256_inserti128_si256(_mm256_castsi128_si256(load<__m128i>(pixels)), load<__m128i>(pixels + 12), 1);
    for (int c = 0; c < 3; ++c) {
      const auto at = [c](int pixel) { return static_cast<char>(3 * pixel + c); };
      const __m256i spread = _mm256_broadcastsi128_si256(
          _mm_setr_epi8(at(0), -1, -1, -1, at(1), -1, -1, -1, at(2), -1, -1, -1, at(3), -1, -1, -1));
      eights[c][i] = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, spread));
    }
  }
  for (int c = 0; c < 3; ++c) channels[c] = joined(eights[c]);
#else
  for (int c = 0; c < 3; ++c) {
    float floats[kLanes];
    for (int i = 0; i < kLanes; ++i) floats[i] = static_cast<float>(pixels[3 * i + c]);
    channels[c] = load<Floats>(floats);
  }
#endif
}

EDGESEG_INLINE Floats looked_up(const float* table, const std::uint8_t* pixels) {
  float values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = table[pixels[3 * i]];
  return load<Floats>(values);
}

template <typename E, bool kComputed>
void normalize_row_by(const PreprocessPlan& plan, const std::uint8_t* line, void* tensor, std::ptrdiff_t at) {
  const Constants constants[3] = {Constants(plan.arithmetic[0]), Constants(plan.arithmetic[1]),
                                  Constants(plan.arithmetic[2])};
  typename E::Type* const to[3] = {row_of<E>(plan, tensor, at, 0), row_of<E>(plan, tensor, at, 1),
                                   row_of<E>(plan, tensor, at, 2)};
  const float* const table = plan.table;
  const auto values_of = [&](const std::uint8_t* pixels, Floats* values) {
    if constexpr (kComputed) split(pixels, values);
    for (int c = 0; c < 3; ++c) {
      values[c] = kComputed ? computed(constants[c], values[c]) : looked_up(table + 256 * c, pixels + c);
    }
  };
  const int w = plan.w;
  Floats values[3];
  int x = 0;
  for (; x + kLanes <= w; x += kLanes) {
    values_of(line + 3 * static_cast<std::ptrdiff_t>(x), values);
    for (int c = 0; c < 3; ++c) store_floats<E>(to[c] + x, values[c]);
  }
  if (x == w) return;
  values_of(line + 3 * static_cast<std::ptrdiff_t>(x), values);
  for (int c = 0; c < 3; ++c) store_floats<E>(to[c] + x, values[c], w - x);
}

// One line of pixels into its places in the planes.
template <typename E>
void normalize_row(const PreprocessPlan& plan, const std::uint8_t* line, void* tensor, std::ptrdiff_t at) {
  plan.arithmetic_is_exact ? normalize_row_by<E, true>(plan, line, tensor, at)
                           : normalize_row_by<E, false>(plan, line, tensor, at);
}

}  // namespace
}  // namespace edgeseg
