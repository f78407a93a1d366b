// The C functions of aspp; edgeseg_kernels.h says what they take.
#include "aspp/aspp.h"
#include "dilated_conv/conv_c.h"

extern "C" {

int32_t edgeseg_aspp(const void* x, int32_t x_element, const edgeseg_conv_branch* branches, int32_t branch_count,
                     const edgeseg_conv_branch* pool, float* y, int64_t N, int64_t H, int64_t W, int64_t C, int64_t O,
                     int64_t x_pitch, int64_t y_pitch, float low, float high, int32_t num_threads,
                     int32_t instruction_set) {
  return edgeseg::run_conv_cpu(
      {x, x_element, branches, branch_count, pool, y, EDGESEG_F32, N, H, W, C, O, x_pitch, y_pitch, low, high},
      num_threads, instruction_set);
}

int32_t edgeseg_aspp_cuda(const void* x, int32_t x_element, const edgeseg_conv_branch* branches, int32_t branch_count,
                          const edgeseg_conv_branch* pool, void* y, int32_t y_element, int64_t N, int64_t H, int64_t W,
                          int64_t C, int64_t O, int64_t x_pitch, int64_t y_pitch, float low, float high,
                          void* workspace, void* stream) {
  return edgeseg::run_conv_cuda(
      workspace, stream,
      {x, x_element, branches, branch_count, pool, y, y_element, N, H, W, C, O, x_pitch, y_pitch, low, high});
}

int32_t edgeseg_aspp_cuda_workspace(int32_t x_element, const edgeseg_conv_branch* branches, int32_t branch_count,
                                    const edgeseg_conv_branch* pool, int32_t y_element, int64_t N, int64_t H, int64_t W,
                                    int64_t C, int64_t O, int64_t* bytes) {
  const int64_t pitch = O * (branch_count + (pool != nullptr ? 1 : 0));
  return edgeseg::run_conv_cuda_workspace(
      {nullptr, x_element, branches, branch_count, pool, nullptr, y_element, N, H, W, C, O, C, pitch, 0.0f, 0.0f},
      bytes);
}

}  // extern "C"
