// Tensor cores and asynchronous copies: inline PTX behind functions, with what the PTX manual says they do as plain
// code for the emulation. Every lane of a warp calls them together, except cp_async_*, which are a thread's own.
//
// Fragments of a 16-row matrix tile, for lane l of the warp, in 4-byte registers (PTX ISA, "Matrix fragments"):
//   a[0..3]  rows l / 4 and l / 4 + 8, then the same rows 16 bytes further along k; bytes 4 (l % 4) .. + 3 of each
//   b[0..1]  of column l / 4: bytes 4 (l % 4) .. + 3 along k, then 16 bytes further
//   c[0..3]  rows l / 4 (c[0], c[1]) and l / 4 + 8 (c[2], c[3]), columns 2 (l % 4) and + 1
// 32 bytes along k are 16 halves or 32 int8, so both types share every load.
#pragma once

#include "common/cuda.h"

#if defined(EDGESEG_CUDA_EMULATED)
#include <utility>
#include <vector>
#endif

namespace edgeseg {

#if defined(EDGESEG_CUDA_EMULATED)

namespace emulation {

struct Copy {
  void* shared;
  const void* global;
  bool there;
};
// What a thread has started and not yet waited for: groups in order, the last one still open. A copy happens only when
// it is waited for, so that code which forgets to wait reads what was there before.
inline std::vector<std::vector<Copy>>& copies() {
  static std::vector<std::vector<Copy>> of_thread[1024];
  std::vector<std::vector<Copy>>& mine = of_thread[warp() * 32 + lane()];
  if (mine.empty()) mine.emplace_back();
  return mine;
}

// c += a * b of a warp, k along 32 bytes of type T.
template <typename T, typename Sum>
void multiply(Sum (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  constexpr int kPer = 4 / sizeof(T);  // elements of a register
  struct Operands {
    T a[4][kPer], b[2][kPer];
  } mine;
  static_assert(sizeof(Operands) == 24, "the six registers");
  std::memcpy(static_cast<void*>(mine.a), a, 16);
  std::memcpy(static_cast<void*>(mine.b), b, 8);
  const std::uint64_t* all = exchange(~0u, reinterpret_cast<std::uint64_t>(&mine));
  Sum products[4] = {};
  for (int i = 0; i < 4; ++i) {
    const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
    for (int register_of_k = 0; register_of_k < 8; ++register_of_k) {  // lanes' first registers, then their others
      const int within = register_of_k % 4, high = register_of_k / 4;
      const T* x = reinterpret_cast<const Operands*>(all[row % 8 * 4 + within])->a[row / 8 + 2 * high];
      const T* y = reinterpret_cast<const Operands*>(all[column * 4 + within])->b[high];
      for (int k = 0; k < kPer; ++k) products[i] += static_cast<Sum>(x[k]) * static_cast<Sum>(y[k]);
    }
  }
  exchange(~0u, 0);  // the operands of every lane live until all have read them
  for (int i = 0; i < 4; ++i) c[i] += products[i];
}

}  // namespace emulation

inline void cp_async_16(void* shared, const void* global, bool there) {
  const std::uintptr_t addresses = reinterpret_cast<std::uintptr_t>(shared) | reinterpret_cast<std::uintptr_t>(global);
  if (addresses % 16 != 0) std::abort();
  emulation::copies().back().push_back({shared, global, there});
}
inline void cp_async_commit() { emulation::copies().emplace_back(); }
template <int kPending>
inline void cp_async_wait() {
  auto& groups = emulation::copies();
  while (static_cast<int>(groups.size()) - 1 > kPending) {
    for (const emulation::Copy& copy : groups.front()) {
      if (copy.there) std::memcpy(copy.shared, copy.global, 16);
      if (!copy.there) std::memset(copy.shared, 0, 16);
    }
    groups.erase(groups.begin());
  }
}

inline void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  const std::uint64_t* rows = emulation::exchange(~0u, reinterpret_cast<std::uint64_t>(row));
  for (int i = 0; i < 4; ++i) {
    const char* from = reinterpret_cast<const char*>(rows[8 * i + emulation::lane() / 4]);
    std::memcpy(&r[i], from + 4 * (emulation::lane() % 4), 4);
  }
}

inline void mma_f16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  emulation::multiply<__half, float>(c, a, b);
}
inline void mma_s8(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  emulation::multiply<std::int8_t, int>(c, a, b);
}

#elif defined(__CUDACC__)

// Copies 16 bytes from global to shared memory, or zeros where there is nothing to copy (the address must still be a
// valid one); in the background where the GPU can (sm_80 and later). Both addresses at multiples of 16.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool there) {
#if __CUDA_ARCH__ >= 800
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(there ? 16 : 0)
               : "memory");
#else
  *static_cast<uint4*>(shared) = there ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
#endif
}
// Ends a group of this thread's copies.
__device__ __forceinline__ void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
// Waits until at most the kPending newest groups of this thread are under way. Other threads need a barrier besides.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
#endif
}

// Four matrices of 8 rows of 16 bytes in shared memory; lane l gives the address of row l % 8 of matrix l / 8 and gets
// of each matrix bytes 4 (l % 4) .. + 3 of row l / 4.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

// c (16 x 8, float) += a (16 x 16 halves) * b (16 x 8 halves)
__device__ __forceinline__ void mma_f16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int half = 0; half < 2; ++half) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  }
#endif
}

// c (16 x 8, int) += a (16 x 32 int8) * b (32 x 8 int8)
__device__ __forceinline__ void mma_s8(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};\n"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int i = 0; i < 4; ++i) {  // rows 0 .. 7 and 8 .. 15 with the first 16 of k, then with the others
    const int row = i % 2;
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};\n"
        : "+r"(c[2 * row]), "+r"(c[2 * row + 1])
        : "r"(a[i]), "r"(b[i / 2]));
  }
#endif
}

#endif

}  // namespace edgeseg
