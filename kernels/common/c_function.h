// What the ops' C functions have in common: how many threads a call deserves, and what a CUDA launch's result means.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/bilinear.h"
#include "common/instruction_set.h"
#include "common/thread_pool.h"

namespace edgeseg {

// Threads that `work` (elements read and written) deserves: waking one costs about as much as this many elements.
inline int deserved_threads(std::int32_t num_threads, double work) {
  if (num_threads > 0) return num_threads;
  constexpr double kElementsPerThread = 1 << 18;
  const double deserved = std::max(1.0, work / kElementsPerThread);
  return static_cast<int>(std::min<double>(available_cpus(), deserved));
}

inline ParallelFor parallel_in_pool(int threads) {
  return [threads](std::int64_t count, const std::function<void(std::int64_t)>& body) {
    run_in_pool(threads, count, body);
  };
}

// The status for a launcher's cudaError_t; remembers it for edgeseg_cuda_error of this thread.
std::int32_t cuda_status(int cuda_error);

}  // namespace edgeseg

// A launcher's result as a status; in a build without CUDA the launcher is not even named.
#if defined(EDGESEG_CUDA)
#define EDGESEG_CUDA_STATUS(launch) edgeseg::cuda_status(launch)
#else
#define EDGESEG_CUDA_STATUS(launch) EDGESEG_NO_CUDA
#endif
