// The C functions of preprocess; edgeseg_kernels.h says what they take.
#include <algorithm>
#include <new>

#include "common/c_function.h"
#include "edgeseg_kernels.h"
#include "preprocess/preprocess.h"

namespace {

edgeseg::PreprocessOptions options_of(const double* mean, const double* std, int32_t mode, int32_t order,
                                      int32_t element) {
  return {mean, std, static_cast<edgeseg::Resampling>(mode), order == EDGESEG_BGR,
          static_cast<edgeseg::Element>(element)};
}

bool valid(const edgeseg::PreprocessShape& shape, const edgeseg::PreprocessOptions& options, int32_t order) {
  return options.mean != nullptr && options.std != nullptr && (order == EDGESEG_RGB || order == EDGESEG_BGR) &&
         edgeseg::preprocess_fault(shape, options) == nullptr;
}

}  // namespace

extern "C" int32_t edgeseg_preprocess_u8(const uint8_t* images, int64_t image_stride, int64_t row_pitch,
                                         const double* mean, const double* std, void* tensor, int64_t N, int64_t H,
                                         int64_t W, int64_t h, int64_t w, int32_t mode, int32_t order, int32_t element,
                                         int32_t num_threads, int32_t instruction_set) {
  const edgeseg::PreprocessShape shape = {N, H, W, h, w};
  const edgeseg::PreprocessOptions options = options_of(mean, std, mode, order, element);
  if (!valid(shape, options, order) || num_threads < 0) return EDGESEG_INVALID_ARGUMENT;
  if (N > 0 && (images == nullptr || tensor == nullptr)) return EDGESEG_INVALID_ARGUMENT;
  const auto set = static_cast<edgeseg::InstructionSet>(instruction_set);
  if (!edgeseg::can_run(set)) return EDGESEG_UNSUPPORTED_INSTRUCTION_SET;

  const double work = 3.0 * static_cast<double>(N) * (static_cast<double>(H) * W + static_cast<double>(h) * w);
  const int threads = edgeseg::deserved_threads(num_threads, work);
  const bool done = edgeseg::preprocess_cpu({images, image_stride, row_pitch}, tensor, shape, options, set, threads,
                                            edgeseg::parallel_in_pool(threads));
  return done ? EDGESEG_OK : EDGESEG_OUT_OF_MEMORY;
}

extern "C" int32_t edgeseg_preprocess_plan(const double* mean, const double* std, int64_t H, int64_t W, int64_t h,
                                           int64_t w, int32_t mode, int32_t order, uint32_t* plan, int64_t* words) {
  const edgeseg::PreprocessShape shape = {1, H, W, h, w};
  const edgeseg::PreprocessOptions options = options_of(mean, std, mode, order, EDGESEG_F32);
  if (!valid(shape, options, order) || words == nullptr) return EDGESEG_INVALID_ARGUMENT;
  try {
    const std::vector<std::uint32_t> made = edgeseg::preprocess_plan(shape, options);
    const bool fits = plan == nullptr || *words >= static_cast<int64_t>(made.size());
    if (plan != nullptr && fits) std::copy(made.begin(), made.end(), plan);
    *words = static_cast<int64_t>(made.size());
    return fits ? EDGESEG_OK : EDGESEG_INVALID_ARGUMENT;
  } catch (const std::bad_alloc&) {
    return EDGESEG_OUT_OF_MEMORY;
  }
}

extern "C" int32_t edgeseg_preprocess_u8_cuda(const uint8_t* images, int64_t image_stride, int64_t row_pitch,
                                              const uint32_t* plan, void* tensor, int64_t N, int64_t H, int64_t W,
                                              int64_t h, int64_t w, int32_t mode, int32_t order, int32_t element,
                                              [[maybe_unused]] void* stream) {
  const double zeros[3] = {0, 0, 0}, ones[3] = {1, 1, 1};  // the plan has the real ones
  const edgeseg::PreprocessShape shape = {N, H, W, h, w};
  const edgeseg::PreprocessOptions options = options_of(zeros, ones, mode, order, element);
  if (!valid(shape, options, order)) return EDGESEG_INVALID_ARGUMENT;
  if (N > 0 && (images == nullptr || tensor == nullptr || plan == nullptr)) return EDGESEG_INVALID_ARGUMENT;
  [[maybe_unused]] const edgeseg::PreprocessImages source = {images, image_stride, row_pitch};
  return EDGESEG_CUDA_STATUS(edgeseg::preprocess_cuda(source, plan, tensor, shape, options, stream));
}
