// CUDA's kernel language on the CPU, for tests on machines without a GPU: blocks one after the other, the threads of a
// block as fibers that change places at barriers and warp operations only.
//
// Shows wrong indices, wrong arithmetic, missing or misplaced barriers (the order in which threads run is shuffled anew
// at every barrier, and shared memory begins as NaN). Does not show: speed, memory ordering between blocks, alignment
// faults, limits of registers or shared memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __restrict__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __shared__ static  // blocks run one after the other
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __grid_constant__

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
// A GPU of two multiprocessors, whatever else is asked.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 2;
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* address, int value, std::size_t bytes, cudaStream_t) {
  std::memset(address, value, bytes);
  return cudaSuccess;
}

namespace edgeseg {

struct Grid {
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;
};

namespace emulation {

void run(const Grid& grid, const std::function<void()>& thread);
void* shared_memory();
// Waits for every thread of the block that has not returned.
void block_barrier();
// Waits for the threads of `mask` in the caller's warp, and gives what each of the 32 brought (8 bytes a lane).
const std::uint64_t* exchange(unsigned mask, std::uint64_t brought);
int lane();
int warp();

template <typename T>
std::uint64_t packed(T value) {
  static_assert(sizeof(T) <= 8, "at most 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T unpacked(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulation

template <typename T>
struct Same {
  using type = T;
};

template <typename... Parameters>
cudaError_t launch(const Grid& grid, void*, void (*kernel)(Parameters...),
                   typename Same<Parameters>::type... arguments) {
  emulation::run(grid, [&] { kernel(arguments...); });
  return cudaSuccess;
}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::shared_memory());
}

}  // namespace edgeseg

constexpr int warpSize = 32;

inline void __syncthreads() { edgeseg::emulation::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { edgeseg::emulation::exchange(mask, 0); }

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const std::uint64_t* all = edgeseg::emulation::exchange(mask, predicate != 0);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>((mask >> lane & 1) && all[lane]) << lane;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int base = edgeseg::emulation::lane() & ~(width - 1);
  return edgeseg::emulation::unpacked<T>(
      edgeseg::emulation::exchange(mask, edgeseg::emulation::packed(value))[base + (source & (width - 1))]);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int other = (edgeseg::emulation::lane() & (width - 1)) ^ lanes;
  return __shfl_sync(mask, value, other < width ? other : edgeseg::emulation::lane(), width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int within = edgeseg::emulation::lane() & (width - 1), other = within + static_cast<int>(delta);
  return __shfl_sync(mask, value, other < width ? other : within, width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int within = edgeseg::emulation::lane() & (width - 1), other = within - static_cast<int>(delta);
  return __shfl_sync(mask, value, other >= 0 ? other : within, width);
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
// sum + the products of the four bytes of a and of b
inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 32; i += 8) sum += (a >> i & 0xff) * (b >> i & 0xff);
  return sum;
}
// The low word of high:low shifted right by shift % 32.
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(high) << 32 | low) >> (shift & 31));
}
// Each byte is the one of the eight of high:low that a hexadecimal digit of the selector names; none of them above 7.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(high) << 32 | low;
  unsigned chosen = 0;
  for (int i = 0; i < 4; ++i) chosen |= static_cast<unsigned>(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return chosen;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
inline void __threadfence() {}  // threads run one at a time
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline float __int_as_float(int x) { return edgeseg::emulation::unpacked<float>(edgeseg::emulation::packed(x)); }
inline int __float_as_int(float x) { return edgeseg::emulation::unpacked<int>(edgeseg::emulation::packed(x)); }

// Threads run one at a time, so plain arithmetic is atomic.
template <typename T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T before = *address;
  *address = std::max(before, value);
  return before;
}

using std::max;
using std::min;
