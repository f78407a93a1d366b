// confusion_matrix on CUDA. The specification is confusion_matrix.h.
#include "common/cuda.h"
#include "confusion_matrix/confusion_matrix.h"

namespace edgeseg {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 16;  // of one thread at a time
constexpr int kMostBlocks = 512;
constexpr unsigned kAll = 0xffffffffu;

using Count = unsigned long long;  // what atomicAdd takes; counts are never negative

template <typename Id>
__device__ __forceinline__ void load_ids(const Id* __restrict__ from, int here, bool aligned, Id (&ids)[kPixels]) {
  if (aligned && here == kPixels) {
    constexpr int kWords = kPixels * static_cast<int>(sizeof(Id)) / 16;
    for (int i = 0; i < kWords; ++i) reinterpret_cast<uint4*>(ids)[i] = reinterpret_cast<const uint4*>(from)[i];
  } else {
    for (int i = 0; i < kPixels; ++i) ids[i] = i < here ? from[i] : Id(0);
  }
}

// kShared: the block counts in shared memory first. aligned: labels and target, to 16 bytes.
template <typename Id, bool kShared>
__global__ void __launch_bounds__(kThreads)
    count_pairs(const Id* __restrict__ labels, const Id* __restrict__ target, int64_t count, int classes,
                int ignore_index, bool aligned, Count* __restrict__ counts) {
  unsigned* const own = dynamic_shared<unsigned>();
  const int columns = classes + 1;
  if (kShared) {
    for (int i = threadIdx.x; i < columns * columns; i += kThreads) own[i] = 0;
    __syncthreads();
  }
  const auto add = [&](int at, unsigned pixels) {
    if (kShared) {
      atomicAdd(own + at, pixels);
    } else {
      atomicAdd(counts + at, static_cast<Count>(pixels));
    }
  };
  const auto index = [&](Id id) {
    return static_cast<unsigned>(id) < static_cast<unsigned>(classes) ? int(id) : classes;
  };

  // Every thread of a warp makes as many rounds, so that all of them meet in the warp's votes.
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kPixels;
  for (int64_t warp_first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x / 32 * 32) * kPixels;
       warp_first < count; warp_first += step) {
    const int64_t first = warp_first + threadIdx.x % 32 * kPixels;
    const int here = static_cast<int>(max(int64_t{0}, min(int64_t{kPixels}, count - first)));
    alignas(16) Id label[kPixels], truth[kPixels];
    load_ids(labels + first, here, aligned, label);
    load_ids(target + first, here, aligned, truth);

    int run = -1;  // where its pixels count; -1 nowhere
    unsigned pixels = 0;
    for (int i = 0; i < kPixels; ++i) {
      const bool counted = i < here && static_cast<int>(truth[i]) != ignore_index;
      const int at = counted ? index(truth[i]) * columns + index(label[i]) : -1;
      if (at != run) {
        if (run >= 0) add(run, pixels);
        run = at;
        pixels = 0;
      }
      ++pixels;
    }
    const int first_run = __shfl_sync(kAll, run, 0);  // by all lanes, hence not within the condition
    const bool whole = __all_sync(kAll, pixels == kPixels && run == first_run);
    if (run >= 0 && !whole) add(run, pixels);
    if (run >= 0 && whole && threadIdx.x % 32 == 0) add(run, 32 * kPixels);
  }

  if (!kShared) return;
  __syncthreads();
  for (int i = threadIdx.x; i < columns * columns; i += kThreads) {
    if (own[i] > 0) atomicAdd(counts + i, static_cast<Count>(own[i]));
  }
}

template <typename Id>
cudaError_t run(const ConfusionMatrix& call, void* stream) {
  constexpr std::size_t kSharedBytes = 48 << 10;  // what every GPU gives a block without asking: up to 109 classes
  const auto* const labels = static_cast<const Id*>(call.labels);
  const auto* const target = static_cast<const Id*>(call.target);
  auto* const counts = reinterpret_cast<Count*>(call.counts);
  const bool aligned = (reinterpret_cast<std::uintptr_t>(labels) | reinterpret_cast<std::uintptr_t>(target)) % 16 == 0;
  const std::size_t bytes = sizeof(unsigned) * static_cast<std::size_t>((call.K + 1) * (call.K + 1));
  const bool shared = bytes <= kSharedBytes;
  const int64_t blocks = min(ceil_div(call.count, int64_t{kThreads * kPixels}), int64_t{kMostBlocks});
  return launch({dim3(static_cast<unsigned>(blocks)), dim3(kThreads), shared ? bytes : 0}, stream,
                shared ? count_pairs<Id, true> : count_pairs<Id, false>, labels, target, call.count,
                static_cast<int>(call.K), call.ignore_index, aligned, counts);
}

}  // namespace

int confusion_matrix_cuda(const ConfusionMatrix& call, void* stream) {
  const std::size_t bytes = sizeof(int64_t) * static_cast<std::size_t>((call.K + 1) * (call.K + 1));
  const cudaError_t error = cudaMemsetAsync(call.counts, 0, bytes, static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess || call.count == 0) return error;
  return call.type == IdType::kU8 ? run<std::uint8_t>(call, stream) : run<std::int32_t>(call, stream);
}

}  // namespace edgeseg
