// The functions of edgeseg_kernels.h that belong to no op: version, statuses, instruction sets, CUDA's last error.
#include "common/c_function.h"
#include "edgeseg_kernels.h"

#if defined(EDGESEG_CUDA)
#include "common/cuda.h"
#endif

namespace {

using edgeseg::InstructionSet;

thread_local int last_cuda_error = 0;

}  // namespace

std::int32_t edgeseg::cuda_status(int cuda_error) {
  last_cuda_error = cuda_error;
  return cuda_error == 0 ? EDGESEG_OK : EDGESEG_CUDA_ERROR;
}

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
    case EDGESEG_NO_CUDA:
      return "this build has no CUDA kernels; build where nvcc is on the PATH";
    case EDGESEG_CUDA_ERROR:
      return "CUDA failed";
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

int32_t edgeseg_has_cuda(void) {
#if defined(EDGESEG_CUDA)
  return 1;
#else
  return 0;
#endif
}

const char* edgeseg_cuda_error(void) {
#if defined(EDGESEG_CUDA)
  return cudaGetErrorString(static_cast<cudaError_t>(last_cuda_error));
#else
  return "no CUDA in this build";
#endif
}

}  // extern "C"
