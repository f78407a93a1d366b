// The two passes of the antialiased resize on rows of bytes. Part of the vector code: included by preprocess_lanes.cpp
// only.
#pragma once

#include "common/lanes.h"
#include "preprocess/preprocess_lanes.h"

namespace edgeseg {
namespace {

constexpr std::int32_t kHalfUnit = 1 << (kWeightBits - 1);

#if defined(__AVX2__)

EDGESEG_INLINE __m256i load_bytes(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

// Four taps of one pixel in two rows, one row a 128-bit half: lanes R, G, B and one that is not used.
//   weight * pixel = 2^16 high * pixel + low * pixel, each by _mm256_madd_epi16
// Sums wrap around modulo 2^32, the total is in range: exact.
EDGESEG_INLINE __m256i four_taps(const std::uint8_t* row0, const std::uint8_t* row1, const __m256i* weights) {
  const __m256i taps01 =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i taps23 =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  // A load to both halves and a blend, which unlike an insertion take no shuffle: those are what is short here.
  const __m256i bytes = _mm256_blend_epi32(_mm256_castsi128_si256(load<__m128i>(row0)),
                                           _mm256_broadcastsi128_si256(load<__m128i>(row1)), 0xf0);
  const __m256i pixels01 = _mm256_shuffle_epi8(bytes, taps01), pixels23 = _mm256_shuffle_epi8(bytes, taps23);
  const __m256i high =
      _mm256_add_epi32(_mm256_madd_epi16(pixels01, weights[2]), _mm256_madd_epi16(pixels23, weights[3]));
  const __m256i low =
      _mm256_add_epi32(_mm256_madd_epi16(pixels01, weights[0]), _mm256_madd_epi16(pixels23, weights[1]));
  return _mm256_add_epi32(low, _mm256_slli_epi32(high, 16));
}

// (sum + 2^21) >> 22 of two pixels, as words: every second one is the second pixel's. The sums' lower halves cannot
// matter, so it is ((sum >> 16) + 32) >> 6, which _mm256_mulhrs_epi16 makes.
EDGESEG_INLINE __m256i rounded(__m256i first, __m256i second) {
  const __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(first, 16), second, 0xaa);
  return _mm256_mulhrs_epi16(upper, _mm256_set1_epi16(1 << 9));
}

// Pixels x and x + 1 of kRowsTogether rows: rounded()'s words of rows 0 and 1, and of rows 2 and 3.
template <bool kOneQuad>
EDGESEG_INLINE void two_pixels(const FixedAxis& columns, int x, const std::uint8_t* const* from, __m256i* words) {
  __m256i sums[2][2];  // [pixel][rows]
  for (int pixel = 0; pixel < 2; ++pixel) {
    const int quads = kOneQuad ? 1 : columns.quads;
    std::ptrdiff_t at = 3 * static_cast<std::ptrdiff_t>(columns.first[x + pixel]);
    const std::uint32_t* packed = columns.packed + static_cast<std::ptrdiff_t>(x + pixel) * quads * kQuadWords;
    for (int quad = 0; quad < quads; ++quad, at += 12, packed += kQuadWords) {
      __m256i weights[4];
      for (int i = 0; i < 4; ++i) weights[i] = _mm256_broadcastsi128_si256(load<__m128i>(packed + 4 * i));
      for (int rows = 0; rows < 2; ++rows) {
        const __m256i more = four_taps(from[2 * rows] + at, from[2 * rows + 1] + at, weights);
        sums[pixel][rows] = quad == 0 ? more : _mm256_add_epi32(sums[pixel][rows], more);
      }
    }
  }
  for (int rows = 0; rows < 2; ++rows) words[rows] = rounded(sums[0][rows], sums[1][rows]);
}

template <bool kOneQuad>
void resize_columns_by(const FixedAxis& columns, int w, const std::uint8_t* const* from, std::uint8_t* const* to) {
  const __m256i in_order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 1, 3, 5, 8, 10, 12, 9, 11, 13, -1, -1, -1, -1));
  for (int x = 0; x < w; x += kPixelsTogether) {
    __m256i words[2][2];  // [pixels][rows]
    two_pixels<kOneQuad>(columns, x, from, words[0]);
    two_pixels<kOneQuad>(columns, x + 2, from, words[1]);
    for (int rows = 0; rows < 2; ++rows) {
      const __m256i pixels = _mm256_shuffle_epi8(_mm256_packus_epi16(words[0][rows], words[1][rows]), in_order);
      store(to[2 * rows] + 3 * static_cast<std::ptrdiff_t>(x), _mm256_castsi256_si128(pixels));
      store(to[2 * rows + 1] + 3 * static_cast<std::ptrdiff_t>(x), _mm256_extracti128_si256(pixels, 1));
    }
  }
}

// kRowsTogether source rows at the output's width.
void resize_columns(const FixedAxis& columns, int w, const std::uint8_t* const* from, std::uint8_t* const* to) {
  columns.quads == 1 ? resize_columns_by<true>(columns, w, from, to) : resize_columns_by<false>(columns, w, from, to);
}

// One output row from its taps' rows, 32 bytes at a time. The high parts, at most 64, are bytes; their sums wrap around
// modulo 2^16 and are shifted by 16 in the end.
void resize_rows(int bytes, int taps, const std::uint8_t* const* rows, const std::int32_t* weights, std::uint8_t* to) {
  const __m256i zero = _mm256_setzero_si256();
  for (int at = 0; at < bytes; at += 32) {
    __m256i low[4] = {zero, zero, zero, zero}, high[2];
    high[0] = high[1] = _mm256_set1_epi16(kHalfUnit >> 16);
    for (int tap = 0; tap < taps; tap += 2) {
      const std::int32_t weight0 = weights[tap], weight1 = weights[tap + 1];  // 0 after the last
      const std::int16_t low0 = static_cast<std::int16_t>(weight0), low1 = static_cast<std::int16_t>(weight1);
      const std::int32_t high0 = (weight0 - low0) >> 16, high1 = (weight1 - low1) >> 16;
      const __m256i lows = _mm256_set1_epi32((low0 & 0xffff) | static_cast<std::int32_t>(
                                                                    static_cast<std::uint32_t>(low1) << 16));
      const __m256i highs = _mm256_set1_epi16(static_cast<std::int16_t>(high0 | high1 << 8));
      const __m256i a = load_bytes(rows[tap] + at), b = load_bytes(rows[tap + 1] + at);
      for (int half = 0; half < 2; ++half) {
        const __m256i pairs = half == 0 ? _mm256_unpacklo_epi8(a, b) : _mm256_unpackhi_epi8(a, b);
        high[half] = _mm256_add_epi16(high[half], _mm256_maddubs_epi16(pairs, highs));
        low[2 * half] =
            _mm256_add_epi32(low[2 * half], _mm256_madd_epi16(_mm256_unpacklo_epi8(pairs, zero), lows));
        low[2 * half + 1] =
            _mm256_add_epi32(low[2 * half + 1], _mm256_madd_epi16(_mm256_unpackhi_epi8(pairs, zero), lows));
      }
    }
    __m256i words[2];
    for (int half = 0; half < 2; ++half) {
      const __m256i left = _mm256_add_epi32(low[2 * half], _mm256_unpacklo_epi16(zero, high[half]));
      const __m256i right = _mm256_add_epi32(low[2 * half + 1], _mm256_unpackhi_epi16(zero, high[half]));
      words[half] = _mm256_packs_epi32(_mm256_srai_epi32(left, kWeightBits), _mm256_srai_epi32(right, kWeightBits));
    }
    store(to + at, _mm256_packus_epi16(words[0], words[1]));
  }
}

#else

// Plain loops, which compilers make vectors of; conversions between vectors of four bytes and of four integers would be
// taken apart into single elements.
EDGESEG_INLINE std::uint8_t byte_of(std::int32_t sum) {
  const std::int32_t value = sum >> kWeightBits;
  return static_cast<std::uint8_t>(value < 255 ? value : 255);
}

void resize_columns(const FixedAxis& columns, int w, const std::uint8_t* const* from, std::uint8_t* const* to) {
  const std::int32_t* weights = columns.weights;
  for (int x = 0; x < w; ++x, weights += 4 * columns.quads) {
    const std::ptrdiff_t at = 3 * static_cast<std::ptrdiff_t>(columns.first[x]);
    for (int r = 0; r < kRowsTogether; ++r) {
      const std::uint8_t* pixel = from[r] + at;
      std::int32_t sum[3] = {kHalfUnit, kHalfUnit, kHalfUnit};
      for (int tap = 0; tap < columns.taps[x]; ++tap, pixel += 3) {
        for (int c = 0; c < 3; ++c) sum[c] += weights[tap] * pixel[c];
      }
      for (int c = 0; c < 3; ++c) to[r][3 * static_cast<std::ptrdiff_t>(x) + c] = byte_of(sum[c]);
    }
  }
}

void resize_rows(int bytes, int taps, const std::uint8_t* const* rows, const std::int32_t* weights, std::uint8_t* to) {
  constexpr int kTogether = 32;  // as in the code above: rows end in room for it
  for (int at = 0; at < bytes; at += kTogether) {
    std::int32_t sums[kTogether];
    for (std::int32_t& sum : sums) sum = kHalfUnit;
    for (int tap = 0; tap < taps; ++tap) {
      const std::uint8_t* row = rows[tap] + at;
      for (int i = 0; i < kTogether; ++i) sums[i] += weights[tap] * row[i];
    }
    for (int i = 0; i < kTogether; ++i) to[at + i] = byte_of(sums[i]);
  }
}

#endif

}  // namespace
}  // namespace edgeseg
