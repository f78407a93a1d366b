// Vectors of EDGESEG_LANES floats in GCC's and Clang's vector extensions: the same source for 4, 8 and 16 lanes. A
// vector wider than the machine's registers is split by the compiler, so 16-lane code runs (slowly) everywhere.
//
// Everything has internal linkage: each instruction set's copy must stay its own (see upsample_argmax_lanes.h).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#define EDGESEG_INLINE static inline __attribute__((always_inline))

namespace {

constexpr int kLanes = EDGESEG_LANES;
static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16, "4, 8 or 16 lanes");

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));

template <typename V, typename T>
EDGESEG_INLINE V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}

template <typename V>
EDGESEG_INLINE void store(void* to, V v) {
  std::memcpy(to, &v, sizeof(V));
}

EDGESEG_INLINE Floats broadcast(float x) { return x - Floats{}; }
EDGESEG_INLINE Ints broadcast(std::int32_t x) { return x - Ints{}; }

// The second of two that do not compare, as the machines' own instructions.
EDGESEG_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
EDGESEG_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }

// (v1, v2, ..., v_last, v_last)
template <typename V>
EDGESEG_INLINE V next_lane(V v) {
#if defined(__clang__) && EDGESEG_LANES == 4
  return __builtin_shufflevector(v, v, 1, 2, 3, 3);
#elif defined(__clang__) && EDGESEG_LANES == 8
  return __builtin_shufflevector(v, v, 1, 2, 3, 4, 5, 6, 7, 7);
#elif defined(__clang__)
  return __builtin_shufflevector(v, v, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15);
#elif EDGESEG_LANES == 4
  return __builtin_shuffle(v, Ints{1, 2, 3, 3});
#elif EDGESEG_LANES == 8
  return __builtin_shuffle(v, Ints{1, 2, 3, 4, 5, 6, 7, 7});
#else
  return __builtin_shuffle(v, Ints{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15});
#endif
}

// Is a >= b in any lane?
EDGESEG_INLINE bool any_at_least(Floats a, Floats b) {
#if defined(__AVX512F__) && EDGESEG_LANES == 16
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ) != 0;
#elif defined(__AVX2__) && EDGESEG_LANES == 8
  return _mm256_movemask_ps((__m256)(a >= b)) != 0;
#elif defined(__SSE2__) && EDGESEG_LANES == 4
  return _mm_movemask_ps((__m128)(a >= b)) != 0;
#elif defined(__ARM_NEON) && defined(__aarch64__) && EDGESEG_LANES == 4
  return vmaxvq_u32((uint32x4_t)(a >= b)) != 0;
#else
  const Ints at_least = a >= b;
  std::int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= at_least[lane];
  return any != 0;
#endif
}

// Is any bit of the mask set?
EDGESEG_INLINE bool any_set(Ints mask) {
  std::int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= mask[lane];
  return any != 0;
}

}  // namespace
