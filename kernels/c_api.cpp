// edgeseg_kernels.h: checks at the door, statuses instead of exceptions.
#include <algorithm>

#include "common/instruction_set.h"
#include "common/thread_pool.h"
#include "edgeseg_kernels.h"
#include "normalize_image/normalize_image.h"
#include "upsample_argmax/upsample_argmax.h"

namespace {

using edgeseg::InstructionSet;

// Threads that `work` (elements read and written) deserves: waking one costs about as much as this many elements.
int deserved_threads(int32_t num_threads, double work) {
  if (num_threads > 0) return num_threads;
  constexpr double kElementsPerThread = 1 << 18;
  const double deserved = std::max(1.0, work / kElementsPerThread);
  return static_cast<int>(std::min<double>(edgeseg::available_cpus(), deserved));
}

edgeseg::ParallelFor pool_of(int threads) {
  return [threads](std::int64_t count, const std::function<void(std::int64_t)>& body) {
    edgeseg::run_in_pool(threads, count, body);
  };
}

}  // namespace

extern "C" {

int32_t edgeseg_kernels_version(void) { return EDGESEG_KERNELS_VERSION; }

const char* edgeseg_status_message(int32_t status) {
  switch (status) {
    case EDGESEG_OK:
      return "ok";
    case EDGESEG_INVALID_ARGUMENT:
      return "invalid argument";
    case EDGESEG_UNSUPPORTED_INSTRUCTION_SET:
      return "this machine or this build does not have the instruction set";
    case EDGESEG_OUT_OF_MEMORY:
      return "out of memory";
    default:
      return "unknown status";
  }
}

int32_t edgeseg_cpu_instruction_set(void) { return static_cast<int32_t>(edgeseg::best_instruction_set()); }

int32_t edgeseg_can_run(int32_t instruction_set) {
  return edgeseg::can_run(static_cast<InstructionSet>(instruction_set)) ? 1 : 0;
}

const char* edgeseg_instruction_set_name(int32_t instruction_set) {
  switch (static_cast<InstructionSet>(instruction_set)) {
    case InstructionSet::kAutomatic:
      return "automatic";
    case InstructionSet::kPortable:
#if defined(__aarch64__)
      return "neon";
#else
      return "portable";
#endif
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      return "avx512";
    case InstructionSet::kLanes16:
      return "lanes16";
  }
  return "unknown";
}

int32_t edgeseg_upsample_argmax_f32(const float* logits, uint8_t* labels, int64_t N, int64_t C, int64_t h, int64_t w,
                                    int64_t H, int64_t W, int32_t num_threads, int32_t instruction_set) {
  const edgeseg::UpsampleArgmaxShape shape = {N, C, h, w, H, W};
  if (edgeseg::upsample_argmax_fault(shape) != nullptr || num_threads < 0) return EDGESEG_INVALID_ARGUMENT;
  if (N > 0 && (logits == nullptr || labels == nullptr)) return EDGESEG_INVALID_ARGUMENT;
  const auto set = static_cast<InstructionSet>(instruction_set);
  if (!edgeseg::can_run(set)) return EDGESEG_UNSUPPORTED_INSTRUCTION_SET;

  const double work = static_cast<double>(N) * (static_cast<double>(C) * h * w + static_cast<double>(H) * W);
  const int threads = deserved_threads(num_threads, work);
  return edgeseg::upsample_argmax_cpu(logits, labels, shape, set, threads, pool_of(threads)) ? EDGESEG_OK
                                                                                             : EDGESEG_OUT_OF_MEMORY;
}

int32_t edgeseg_normalize_image_u8(const uint8_t* image, const float* table, float* tensor, int64_t H, int64_t W,
                                   int32_t num_threads) {
  if (image == nullptr || table == nullptr || tensor == nullptr || num_threads < 0) return EDGESEG_INVALID_ARGUMENT;
  for (const int64_t side : {H, W}) {
    if (side < 1 || side > edgeseg::kMaxSide) return EDGESEG_INVALID_ARGUMENT;
  }
  const int threads = deserved_threads(num_threads, 6.0 * static_cast<double>(H) * static_cast<double>(W));
  edgeseg::normalize_image_cpu(image, table, tensor, H, W, pool_of(threads));
  return EDGESEG_OK;
}

}  // extern "C"
