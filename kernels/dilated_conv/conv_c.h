// What the C functions of dilated_conv and aspp share: their arguments as a job, checked and run.
#pragma once

#include "common/c_function.h"
#include "dilated_conv/dilated_conv.h"
#include "edgeseg_kernels.h"

namespace edgeseg {

// The arguments of a C function, in the order of edgeseg_kernels.h.
struct ConvArguments {
  const void* x;
  int32_t x_element;
  const edgeseg_conv_branch* branches;
  int32_t branch_count;
  const edgeseg_conv_branch* pool;  // or null
  void* y;
  int32_t y_element;
  int64_t N, H, W, C, O, x_pitch, y_pitch;
  float low, high;
};

inline ConvBranch conv_branch(const edgeseg_conv_branch& from) {
  return {from.weight, from.bias, from.scale, from.kernel, from.dilation};
}

// False unless everything is in order; `pointers`: those too.
inline bool conv_job(const ConvArguments& a, bool pointers, ConvJob* job) {
  const bool int8 = a.x_element == EDGESEG_S8;
  if (!is_element(a.y_element) || (!int8 && a.x_element != a.y_element)) return false;
  if (a.branches == nullptr || a.branch_count < 1 || a.branch_count > kMaxConvBranches) return false;
  *job = {a.N,
          a.H,
          a.W,
          a.C,
          a.O,
          a.x_pitch,
          a.y_pitch,
          a.x,
          a.y,
          int8,
          static_cast<Element>(a.y_element),
          a.low,
          a.high,
          a.branch_count,
          {},
          a.pool != nullptr,
          {}};
  for (int b = 0; b < a.branch_count; ++b) job->branch[b] = conv_branch(a.branches[b]);
  if (job->has_pool) job->pool = conv_branch(*a.pool);
  if (conv_fault(*job) != nullptr) return false;
  if (!pointers || a.N == 0) return true;
  const auto whole = [&](const ConvBranch& branch) {
    return branch.weight != nullptr && (branch.scale != nullptr) == int8;
  };
  bool all = a.x != nullptr && a.y != nullptr && (!job->has_pool || whole(job->pool));
  for (int b = 0; b < a.branch_count; ++b) all = all && whole(job->branch[b]);
  return all;
}

inline int32_t run_conv_cpu(const ConvArguments& arguments, int32_t num_threads, int32_t instruction_set) {
  ConvJob job;
  if (!conv_job(arguments, true, &job) || job.element != Element::kF32 || num_threads < 0) {
    return EDGESEG_INVALID_ARGUMENT;
  }
  const auto set = static_cast<InstructionSet>(instruction_set);
  if (!can_run(set)) return EDGESEG_UNSUPPORTED_INSTRUCTION_SET;
  const int threads = deserved_threads(num_threads, conv_macs(job) / 8);
  return conv_cpu(job, set, threads, parallel_in_pool(threads)) ? EDGESEG_OK : EDGESEG_OUT_OF_MEMORY;
}

inline int32_t run_conv_cuda([[maybe_unused]] void* workspace, [[maybe_unused]] void* stream,
                             const ConvArguments& arguments) {
  ConvJob job;
  if (!conv_job(arguments, true, &job) || job.element == Element::kBf16) return EDGESEG_INVALID_ARGUMENT;
  return EDGESEG_CUDA_STATUS(conv_cuda(job, workspace, stream));
}

inline int32_t run_conv_cuda_workspace(const ConvArguments& arguments, int64_t* bytes) {
  ConvJob job;
  if (bytes == nullptr || !conv_job(arguments, false, &job)) return EDGESEG_INVALID_ARGUMENT;
#if defined(EDGESEG_CUDA)
  *bytes = conv_cuda_workspace(job);
  return EDGESEG_OK;
#else
  return EDGESEG_NO_CUDA;
#endif
}

}  // namespace edgeseg
