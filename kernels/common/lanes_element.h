// Vectors of floats from and to memory that holds float32, float16 or bfloat16. Part of the vector code, as lanes.h is.
//
// load_floats<E>(from) and store_floats<E>(to, floats), E one of F32, F16 and Bf16, move kLanes elements; with a count,
// the first `count` alone, the other lanes being 0 when loaded. Narrowing rounds to nearest, ties to even; NaN stays
// NaN.
#pragma once

#include "common/lanes.h"

namespace {

template <typename To, typename From>
EDGESEG_INLINE To bits_of(From v) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  return (To)v;
}

EDGESEG_INLINE Words words(std::uint32_t x) { return x - Words{}; }

struct F32 {
  using Type = float;
  EDGESEG_INLINE Floats widen(Floats v) { return v; }
  EDGESEG_INLINE Floats narrow(Floats v) { return v; }
  using Vector = Floats;
};

struct F16 {
  using Type = std::uint16_t;
  using Vector = Halves;

  EDGESEG_INLINE Floats widen(Halves halves) {
#if defined(__AVX512F__) && EDGESEG_LANES == 16  // masked by all ones: GCC 12 warns of the plain form's undefined
    return (Floats)_mm512_maskz_cvtph_ps(0xffff, (__m256i)halves);
#elif defined(__F16C__) && EDGESEG_LANES == 8
    return (Floats)_mm256_cvtph_ps((__m128i)halves);
#elif defined(__ARM_NEON) && defined(__aarch64__) && EDGESEG_LANES == 4
    return (Floats)vcvt_f32_f16((float16x4_t)halves);
#else
    const Words bits = __builtin_convertvector(halves, Words);
    const Words magnitude = (bits & 0x7fff) << 13;
    // The exponents' offsets differ by 112; the product is exact, also where the half is subnormal.
    const Floats scaled = bits_of<Floats>(magnitude) * broadcast(0x1p112f);
    const Words special = bits_of<Words>(magnitude >= words(0x7c00u << 13)) & 0x7f800000u;  // infinity, NaN
    return bits_of<Floats>(bits_of<Words>(scaled) | special | (bits & 0x8000) << 16);
#endif
  }

  EDGESEG_INLINE Halves narrow(Floats floats) {
#if defined(__AVX512F__) && EDGESEG_LANES == 16
    return (Halves)_mm512_maskz_cvtps_ph(0xffff, (__m512)floats, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__) && EDGESEG_LANES == 8
    return (Halves)_mm256_cvtps_ph((__m256)floats, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__ARM_NEON) && defined(__aarch64__) && EDGESEG_LANES == 4
    return (Halves)vcvt_f16_f32((float32x4_t)floats);
#else
    const Words bits = bits_of<Words>(floats), magnitude = bits & 0x7fffffff;
    const Words normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    // A subnormal half counts units of 2^-24, which is the last place of 0.5.
    const Words subnormal = bits_of<Words>(bits_of<Floats>(magnitude) + broadcast(0.5f)) - 0x3f000000;
    const Words infinite = words(0x7c00), nan = words(0x7e00);
    Words half = magnitude < words(0x38800000) ? subnormal : normal;  // below 2^-14
    half = magnitude >= words(0x477ff000) ? infinite : half;          // 65520 and more
    half = magnitude > words(0x7f800000) ? nan : half;
    return __builtin_convertvector(half | (bits >> 16 & 0x8000), Halves);
#endif
  }
};

struct Bf16 {
  using Type = std::uint16_t;
  using Vector = Halves;

  EDGESEG_INLINE Floats widen(Halves halves) {
#if defined(__AVX2__) && EDGESEG_LANES == 8  // GCC 12 makes two of the one widening
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)halves), 16);
#else
    return bits_of<Floats>(__builtin_convertvector(halves, Words) << 16);
#endif
  }

  EDGESEG_INLINE Halves narrow(Floats floats) {
    const Words bits = bits_of<Words>(floats);
    const Words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const Words nan = bits >> 16 | 0x40;
    return __builtin_convertvector((bits & 0x7fffffff) > words(0x7f800000) ? nan : rounded, Halves);
  }
};

template <typename E>
EDGESEG_INLINE Floats load_floats(const typename E::Type* from) {
  return E::widen(load<typename E::Vector>(from));
}

template <typename E>
EDGESEG_INLINE Floats load_floats(const typename E::Type* from, int count) {
  typename E::Vector v = {};
  std::memcpy(&v, from, sizeof(typename E::Type) * static_cast<std::size_t>(count));
  return E::widen(v);
}

template <typename E>
EDGESEG_INLINE void store_floats(typename E::Type* to, Floats floats) {
  store(to, E::narrow(floats));
}

template <typename E>
EDGESEG_INLINE void store_floats(typename E::Type* to, Floats floats, int count) {
  const typename E::Vector v = E::narrow(floats);
  std::memcpy(to, &v, sizeof(typename E::Type) * static_cast<std::size_t>(count));
}

}  // namespace
