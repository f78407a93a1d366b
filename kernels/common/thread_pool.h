// A few sleeping threads for kernels called without torch.
#pragma once

#include <cstdint>
#include <functional>

namespace edgeseg {

// Runs body(0) .. body(count - 1), each once, in any order, perhaps at the same time, and returns when all are done.
// body must not throw.
using ParallelFor = std::function<void(std::int64_t count, const std::function<void(std::int64_t)>& body)>;

// CPUs that this process may run on (its affinity mask where the system has one), at least 1.
int available_cpus();

// ParallelFor on the calling thread and up to num_threads - 1 workers of one process-wide pool.
//
// The workers sleep between calls, so they do not compete with other pools' threads. A worker that wakes too late is
// not waited for. While another thread is in the pool, and in a process forked from one that had a pool, the call still
// works: on the calling thread alone, or with a new pool.
void run_in_pool(int num_threads, std::int64_t count, const std::function<void(std::int64_t)>& body);

}  // namespace edgeseg
