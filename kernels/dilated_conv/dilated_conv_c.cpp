// The C functions of dilated_conv; edgeseg_kernels.h says what they take.
#include "dilated_conv/conv_c.h"

extern "C" {

int32_t edgeseg_dilated_conv(const void* x, int32_t x_element, const edgeseg_conv_branch* branch, float* y, int64_t N,
                             int64_t H, int64_t W, int64_t C, int64_t O, int64_t x_pitch, int64_t y_pitch, float low,
                             float high, int32_t num_threads, int32_t instruction_set) {
  return edgeseg::run_conv_cpu(
      {x, x_element, branch, 1, nullptr, y, EDGESEG_F32, N, H, W, C, O, x_pitch, y_pitch, low, high}, num_threads,
      instruction_set);
}

int32_t edgeseg_dilated_conv_cuda(const void* x, int32_t x_element, const edgeseg_conv_branch* branch, void* y,
                                  int32_t y_element, int64_t N, int64_t H, int64_t W, int64_t C, int64_t O,
                                  int64_t x_pitch, int64_t y_pitch, float low, float high, void* workspace,
                                  void* stream) {
  return edgeseg::run_conv_cuda(
      workspace, stream, {x, x_element, branch, 1, nullptr, y, y_element, N, H, W, C, O, x_pitch, y_pitch, low, high});
}

int32_t edgeseg_dilated_conv_cuda_workspace(int32_t x_element, const edgeseg_conv_branch* branch, int32_t y_element,
                                            int64_t N, int64_t H, int64_t W, int64_t C, int64_t O, int64_t* bytes) {
  return edgeseg::run_conv_cuda_workspace(
      {nullptr, x_element, branch, 1, nullptr, nullptr, y_element, N, H, W, C, O, C, O, 0.0f, 0.0f}, bytes);
}

}  // extern "C"
