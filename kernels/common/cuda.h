// What every .cu file includes: CUDA itself, or in libedgeseg_emulated its emulation on the CPU, and how a kernel is
// launched in both. Kernels use dynamic shared memory through dynamic_shared() and are launched through launch().
#pragma once

#if defined(EDGESEG_CUDA_EMULATED)
#include "emulation/emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace edgeseg {

struct Grid {
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;
};

template <typename T>
struct Same {
  using type = T;
};

// Starts kernel<<<grid>>>(arguments...) on the stream, a cudaStream_t; the error of the launch, not of what runs.
template <typename... Parameters>
cudaError_t launch(const Grid& grid, void* stream, void (*kernel)(Parameters...),
                   typename Same<Parameters>::type... arguments) {
  constexpr std::size_t kWithoutAsking = 47 << 10;  // 48 KiB, of which a kernel's static arrays take their part
  if (grid.shared_bytes > kWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(grid.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  void* pointers[] = {&arguments...};
  return cudaLaunchKernel(kernel, grid.blocks, grid.threads, pointers, grid.shared_bytes,
                          static_cast<cudaStream_t>(stream));
}

#if defined(__CUDACC__)
// The block's dynamic shared memory, aligned to 128 bytes.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char edgeseg_dynamic_shared[];
  return reinterpret_cast<T*>(edgeseg_dynamic_shared);
}
#endif

}  // namespace edgeseg
#endif

namespace edgeseg {

template <typename T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace edgeseg
