// The C functions of pyramid_pooling; edgeseg_kernels.h says what they take.
#include "common/c_function.h"
#include "edgeseg_kernels.h"
#include "pyramid_pooling/pyramid_pooling.h"

namespace {

using edgeseg::Element;
using edgeseg::PyramidPoolingShape;

bool takes(const PyramidPoolingShape& shape, const void* x, const void* pooled, std::int32_t element) {
  if (shape.bins == nullptr || edgeseg::pyramid_pooling_fault(shape) != nullptr) return false;
  return element >= EDGESEG_F32 && element <= EDGESEG_BF16 &&
         (shape.N == 0 || shape.C == 0 || (x != nullptr && pooled != nullptr));
}

}  // namespace

extern "C" int32_t edgeseg_pyramid_pooling(const void* x, void* pooled, int32_t element, int64_t N, int64_t C,
                                           int64_t H, int64_t W, const int32_t* bins, int64_t bin_count,
                                           int32_t channels_last, int32_t num_threads, int32_t instruction_set) {
  const PyramidPoolingShape shape = {N, C, H, W, bins, bin_count, channels_last != 0};
  if (!takes(shape, x, pooled, element) || num_threads < 0) return EDGESEG_INVALID_ARGUMENT;
  const auto set = static_cast<edgeseg::InstructionSet>(instruction_set);
  if (!edgeseg::can_run(set)) return EDGESEG_UNSUPPORTED_INSTRUCTION_SET;

  const double work = static_cast<double>(N) * static_cast<double>(C) * static_cast<double>(H) * static_cast<double>(W);
  const int threads = edgeseg::deserved_threads(num_threads, work);
  const bool done = edgeseg::pyramid_pooling_cpu(x, pooled, static_cast<Element>(element), shape, set, threads,
                                                 edgeseg::parallel_in_pool(threads));
  return done ? EDGESEG_OK : EDGESEG_OUT_OF_MEMORY;
}

extern "C" int32_t edgeseg_pyramid_pooling_cuda_workspace(int64_t N, int64_t C, int64_t H, int64_t W,
                                                          const int32_t* bins, int64_t bin_count, int32_t channels_last,
                                                          int64_t* bytes) {
  const PyramidPoolingShape shape = {N, C, H, W, bins, bin_count, channels_last != 0};
  if (bytes == nullptr || bins == nullptr || edgeseg::pyramid_pooling_fault(shape)) return EDGESEG_INVALID_ARGUMENT;
#if defined(EDGESEG_CUDA)
  *bytes = edgeseg::pyramid_pooling_workspace(shape);
  return EDGESEG_OK;
#else
  return EDGESEG_NO_CUDA;
#endif
}

extern "C" int32_t edgeseg_pyramid_pooling_cuda(const void* x, void* pooled, void* workspace, int32_t element,
                                                int64_t N, int64_t C, int64_t H, int64_t W, const int32_t* bins,
                                                int64_t bin_count, int32_t channels_last, void* stream) {
  const PyramidPoolingShape shape = {N, C, H, W, bins, bin_count, channels_last != 0};
  if (!takes(shape, x, pooled, element)) return EDGESEG_INVALID_ARGUMENT;
#if defined(EDGESEG_CUDA)
  if (workspace == nullptr && edgeseg::pyramid_pooling_workspace(shape) > 0) return EDGESEG_INVALID_ARGUMENT;
#else
  (void)workspace, (void)stream;
#endif
  return EDGESEG_CUDA_STATUS(
      edgeseg::pyramid_pooling_cuda(x, pooled, workspace, static_cast<Element>(element), shape, stream));
}
