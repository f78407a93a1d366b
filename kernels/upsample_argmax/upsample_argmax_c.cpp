// The C functions of upsample_argmax; edgeseg_kernels.h says what they take.
#include "common/c_function.h"
#include "edgeseg_kernels.h"
#include "upsample_argmax/upsample_argmax.h"

namespace {

bool can_take(const void* logits, int32_t element, const void* labels, const edgeseg::UpsampleArgmaxShape& shape) {
  return edgeseg::upsample_argmax_fault(shape) == nullptr && edgeseg::is_element(element) &&
         (shape.N == 0 || (logits != nullptr && labels != nullptr));
}

}  // namespace

extern "C" {

int32_t edgeseg_upsample_argmax(const void* logits, int32_t element, void* labels, float* margin, int64_t N, int64_t C,
                                int64_t h, int64_t w, int64_t H, int64_t W, int32_t align_corners, int32_t num_threads,
                                int32_t instruction_set) {
  const edgeseg::UpsampleArgmaxShape shape = {N, C, h, w, H, W};
  if (!can_take(logits, element, labels, shape) || num_threads < 0) return EDGESEG_INVALID_ARGUMENT;
  const auto set = static_cast<edgeseg::InstructionSet>(instruction_set);
  if (!edgeseg::can_run(set)) return EDGESEG_UNSUPPORTED_INSTRUCTION_SET;

  const double work = static_cast<double>(N) * (static_cast<double>(C) * h * w + static_cast<double>(H) * W);
  const int threads = edgeseg::deserved_threads(num_threads, work);
  const bool done = edgeseg::upsample_argmax_cpu(logits, static_cast<edgeseg::Element>(element), labels, margin, shape,
                                                 align_corners != 0, set, threads, edgeseg::parallel_in_pool(threads));
  return done ? EDGESEG_OK : EDGESEG_OUT_OF_MEMORY;
}

int32_t edgeseg_upsample_argmax_cuda(const void* logits, int32_t element, void* labels, float* margin, int64_t N,
                                     int64_t C, int64_t h, int64_t w, int64_t H, int64_t W, int32_t align_corners,
                                     void* stream) {
  const edgeseg::UpsampleArgmaxShape shape = {N, C, h, w, H, W};
  if (!can_take(logits, element, labels, shape)) return EDGESEG_INVALID_ARGUMENT;
  (void)align_corners, (void)stream, (void)margin;
  return EDGESEG_CUDA_STATUS(edgeseg::upsample_argmax_cuda(logits, static_cast<edgeseg::Element>(element), labels,
                                                           margin, shape, align_corners != 0, stream));
}

}  // extern "C"
